-- Reads one schedule, and whether its source is known.

return pack(now, 'ok', call('HEXISTS', SOURCES, source_names[1]) == 1, schedule(arguments[2]))
