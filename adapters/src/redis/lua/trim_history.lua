-- Drops what is kept beyond the settings, a page at a time.

local PAGE = 500

local settings = source(1)
if settings[KEEP_COMPLETED] == 0 then
    call('DEL', key(1, COMPLETED))
else
    call('LTRIM', key(1, COMPLETED), 0, settings[KEEP_COMPLETED] - 1)
end
local over = call('ZCARD', key(1, FAILED)) - settings[KEEP_FAILED]
if over > 0 then
    call('ZREMRANGEBYRANK', key(1, FAILED), 0, min(over, PAGE) - 1)
end
return answer('ok', over > PAGE)
