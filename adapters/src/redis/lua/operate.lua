-- What an operator does to sources: pause, resume, set the limit of jobs. Unknown sources are passed over.

local _, act, value, window_ms = unpack(arguments)
for block = 1, #source_names do
    local row = source(block)
    if row and act == 'pause' then
        if row[PAUSED] ~= value then
            row[PAUSED] = value
            touch_source(block)
        end
    elseif row and act == 'resume' then
        local shut = row[CLOSED_UNTIL] and row[CLOSED_UNTIL] > now
        if row[PAUSED] or shut then
            row[PAUSED], row[CLOSED_UNTIL] = false, false
            touch_source(block)
            start_ramp(block, now)
            calls_others = true
        end
    elseif row and act == 'limit' then
        if row[JOBS_COUNT] ~= value or row[JOBS_MS] ~= window_ms then
            row[JOBS_COUNT], row[JOBS_MS] = value, window_ms
            touch_source(block)
            calls_others = true
        end
    elseif not row then
        return pack(now, 'unknown')
    end
end
flush_sources()
return answer('ok')
