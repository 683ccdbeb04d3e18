-- Makes a source known, or changes its settings. The same settings again leave an operator's limit in force.

local SOURCES_MAX = 100

local _, settings, defined = unpack(arguments)
local row = source(1)
if not row then
    if call('HLEN', SOURCES) >= SOURCES_MAX then
        return pack(now, 'full')
    end
    settings[DEFINED] = defined
    settings[PAUSED], settings[CLOSED_UNTIL], settings[CLOSED_WHY], settings[LIMITED_IN_A_ROW] = false, false, false, 0
    settings[RAMP_SINCE], settings[RAMP_STARTS] = false, 0
    settings[HAD_USER_LIMIT] = settings[USER_COUNT] and true or false
    sources[1] = settings
    touch_source(1)
    flush_sources()
    return answer('ok')
end
if row[DEFINED] == defined then
    return pack(now, 'ok')
end
local other_limit = row[USER_COUNT] ~= settings[USER_COUNT] or row[USER_MS] ~= settings[USER_MS]
if other_limit and call('ZCARD', key(1, HELD)) > 0 then
    -- Jobs that wait for their user's requests are looked at again first.
    return pack(now, 'look_again')
end
for field = JOBS_COUNT, STALLS_MAX do
    row[field] = settings[field]
end
row[DEFINED] = defined
row[HAD_USER_LIMIT] = row[HAD_USER_LIMIT] or row[USER_COUNT] and true or false
touch_source(1)
flush_sources()
calls_others = true
return answer('ok', true)
