-- The sliding windows of core's policy/limit.rs, by the same rules. A window is a flat list: the last millisecond in
-- which the starts of a bucket may have happened, their count, and so on, oldest first. Questions change nothing.

--
-- To make a function costs, and a source without limits needs none of these: they are made when first needed.

local windows
local function make_windows()
    local EXACT_COUNT_MAX, SLOTS, BUCKETS_MAX, LIMIT_WINDOW_MS_MAX = 64, 64, 82, 86400000

    local function used(window, window_ms)
        local sum = 0
        for i = 1, #window, 2 do
            if window[i] + window_ms > now then
                sum = sum + window[i + 1]
            end
        end
        return sum
    end

    -- How many more may start now.
    local function available(window, count, window_ms)
        return max(0, count - used(window, window_ms))
    end

    -- The first time at which `wanted` more may start if nothing else does.
    local function opens_at(window, count, window_ms, wanted)
        if wanted == 0 then
            return now
        end
        local room_for = count - min(wanted, count)
        local left, at = used(window, window_ms), now
        for i = 1, #window, 2 do
            if left <= room_for then
                break
            end
            local leaves_at = window[i] + window_ms
            if leaves_at > now then
                left = left - window[i + 1]
                at = leaves_at
            end
        end
        return at
    end

    -- Puts `starts` more, with all that stand in buckets after `last_max`, into the newest bucket that ends in now to
    -- `last_max`, or into a new one at `last_max`.
    local function gather(window, last_max, starts)
        local length = #window
        while length > 0 and window[length - 1] > last_max do
            starts = starts + window[length]
            window[length], window[length - 1] = nil, nil
            length = length - 2
        end
        if starts == 0 then
            return
        end
        if length > 0 and window[length - 1] >= now then
            window[length] = window[length] + starts
        else
            window[length + 1], window[length + 2] = last_max, starts
        end
    end

    -- Drops `buckets` of the oldest.
    local function drop_oldest(window, buckets)
        local length = #window
        for i = 1, length do
            window[i] = window[i + 2 * buckets]
        end
    end

    -- Drops the oldest buckets that have left the window and cannot matter if it is lengthened.
    local function forget(window, count, window_ms)
        local newer, gone = 0, 0
        for i = 2, #window, 2 do
            newer = newer + window[i]
        end
        for i = 1, #window, 2 do
            newer = newer - window[i + 1]
            local is_behind = window[i] + window_ms <= now
            local is_ancient = window[i] + LIMIT_WINDOW_MS_MAX <= now
            if not is_behind or newer < count and not is_ancient then
                break
            end
            gone = gone + 1
        end
        if gone > 0 then
            drop_oldest(window, gone)
        end
    end

    local function record(window, starts, count, window_ms)
        if starts == 0 then
            return
        end
        local granularity_ms = 1
        if count > EXACT_COUNT_MAX then
            granularity_ms = max(1, math.ceil(window_ms / SLOTS))
        end
        gather(window, now + granularity_ms - 1 - now % granularity_ms, starts)
        forget(window, count, window_ms)
        while #window > 2 * BUCKETS_MAX do
            window[4] = window[4] + window[2]
            drop_oldest(window, 1)
        end
    end

    -- Takes starts that lie after now to have happened now: the clock stepped back.
    local function restamp(window)
        gather(window, now, 0)
    end

    windows = { available = available, opens_at = opens_at, record = record, restamp = restamp }
end
