-- Reads all schedules (there are few): names and rows in turn.

local all = call('HGETALL', SCHEDULES)
for i = 2, #all, 2 do
    all[i] = decode(all[i])
end
return pack(now, 'ok', all)
