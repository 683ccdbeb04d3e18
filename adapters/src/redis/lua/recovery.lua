-- What a claim seldom has to do, made when it is needed: leases that expired, leases that their worker does not know of,
-- windows of users that count no more. Needs setbacks.lua, flows.lua, claimed.lua.

-- Leases that are looked through, when a worker does not know all it holds, at the most.
local LEASES_SCAN_MAX = 10000

local recovery
local function make_recovery()
    if recovery then
        return
    end

    -- The jobs behind members of the set of leases: blocks and names in the same order. Their rows are read.
    local function jobs_behind(members)
        local block_of, blocks, names, names_of = { [''] = 0 }, {}, {}, {}
        for block = 1, #source_names do
            block_of[source_names[block]] = block
        end
        for i = 1, #members do
            local split = string.find(members[i], '\0', 1, true)
            local block, name = block_of[string.sub(members[i], 1, split - 1)], string.sub(members[i], split + 1)
            blocks[i] = block
            names[i] = name
            names_of[block] = and_name(names_of[block], name)
        end
        for block, of_block in pairs(names_of) do
            load(block, of_block)
        end
        return blocks, names
    end

    -- Takes back the jobs whose leases expired; how many wait again, how many were given up.
    local function take_back(expired)
        make_setbacks()
        local again, given_up = 0, 0
        local blocks, names = jobs_behind(expired)
        for i = 1, #names do
            if setbacks.stall(blocks[i], names[i], rows[blocks[i]][names[i]]) then
                given_up = given_up + 1
            else
                again = again + 1
            end
        end
        return again, given_up
    end

    -- Windows of users' requests that count no more are dropped; nobody sees it, so it does not count as a change. A step
    -- back of the clock by a second is ordinary wobble: what left the window just now may come back into it.
    local function drop_asked(block, over)
        make_flows()
        local settings, was_changed = source(block), changed
        local known = flows.load_asked(block, over)
        for i = 1, #over do
            local window = known[over[i]]
            local count, window_ms = settings[USER_COUNT], settings[USER_MS]
            local empty_at = count and windows.opens_at(window[2], count, window_ms, count) or now
            if empty_at > now then
                -- A longer window was set since, or the clock stepped back.
                window[1] = empty_at
            else
                known[over[i]] = false
            end
            flows.touch_asked(block, over[i])
        end
        flows.flush_asked()
        changed = was_changed
    end

    -- Gives a worker what it holds and does not know of: the answer to the claim that gave it was lost.
    local function give_again(knows)
        local again = {}
        local blocks, names = jobs_behind(call('ZRANGE', LEASES, 0, LEASES_SCAN_MAX - 1))
        for i = 1, #names do
            local row = rows[blocks[i]][names[i]]
            if row[WORKER] == worker and row[EXPIRES] > now and not knows[row[TOKEN]] then
                again[#again + 1] = { row[TOKEN], blocks[i], names[i], row }
            end
        end
        table.sort(again, function(left, right) return left[1] < right[1] end)
        for i = 1, #again do
            local _, block, name, row = unpack(again[i])
            local free = block == 0 and fan_out_slots or slots
            if free > 0 then
                if block == 0 then
                    fan_out_slots = fan_out_slots - 1
                else
                    slots = slots - 1
                end
                row[LEASE_MS], row[EXPIRES] = lease_ms, now + lease_ms
                touch(row)
                give(block, name, row)
            end
        end
    end

    recovery = { take_back = take_back, drop_asked = drop_asked, give_again = give_again }
end
