-- Enqueues dead letters again, or forgets them (`discards` is 1): one by its number, or a page of all, source by source,
-- fan-outs last, oldest first. One whose user is parked or not enrolled, or whose schedule is gone, stays where it is
-- unless it is to be forgotten. Answers the count, and where the next page begins: place and number.

local PAGE = 100

local _, number, place, after, most, discards = unpack(arguments)
local count, looked = 0, 0
make_wishes()

local function take(block, raw)
    if discards == 1 then
        call('ZREM', key(block, FAILED), raw)
        changed = true
        count = count + 1
        return
    end
    local _, name, _, _, _, nominal = decode(raw)
    local row
    if block == 0 then
        row = call('HEXISTS', SCHEDULES, name) == 1 and fan_out_row(name)
    else
        row = load(block, { name })[name]
        row = row and row[PARKED] == 0 and row
    end
    if row then
        call('ZREM', key(block, FAILED), raw)
        want(row, now, 0, nominal, true)
        touch(row)
        count = count + 1
    end
end

if number then
    for block = 0, #source_names do
        local raw = call('ZRANGEBYSCORE', key(block, FAILED), number, number)[1]
        if raw then
            take(block, raw)
        end
    end
    flush()
    return answer('ok', count, false, 0)
end
while place <= #source_names + 1 and count < most and looked < PAGE do
    local block = place <= #source_names and place or 0
    local from = '(' .. string.format('%.0f', after)
    local letters = call('ZRANGEBYSCORE', key(block, FAILED), from, '+inf', 'WITHSCORES', 'LIMIT', 0, PAGE - looked)
    for i = 1, #letters, 2 do
        if count == most then
            break
        end
        take(block, letters[i])
        after = tonumber(letters[i + 1])
        looked = looked + 1
    end
    if #letters == 0 then
        place, after = place + 1, 0
    end
end
flush()
return answer('ok', count, place <= #source_names + 1 and count < most and place, after)
