-- For scripts that go over all sources: the caller must know all of them, or its keys are too few.
if call('HLEN', SOURCES) ~= #source_names then
    return pack(now, 'sources', call('HKEYS', SOURCES))
end
