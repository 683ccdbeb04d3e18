-- Wishes for a job: the first makes it, a later one joins it, or waits until its attempt has ended. Needs rows.lua.
--
-- Most turns need none of these functions: they are made when first needed.

local want, take_again
local function make_wishes()
    if want then
        return
    end

    -- Both wishes in one: the earlier time, the higher priority, the newest tick.
    local function join(at, priority, nominal, at2, priority2, nominal2)
        return min(at, at2), max(priority, priority2), nominal and nominal2 and max(nominal, nominal2) or nominal or nominal2
    end

    -- A new job, or one more wish on the outstanding one; whether it is new. `hurries`: may shorten a wait that an ended
    -- attempt has set.
    function want(row, at, priority, nominal, hurries)
        local run_at = row[RUN_AT]
        if not run_at then
            -- One after another: a list assigned to from behind grows with a hole.
            row[RUN_AT] = at
            row[PRIORITY] = priority
            row[NOMINAL] = nominal
            return true
        end
        if row[WORKER] then
            if row[AGAIN_AT] then
                at, priority, nominal = join(row[AGAIN_AT], row[AGAIN_PRIORITY], row[AGAIN_NOMINAL], at, priority, nominal)
            end
            row[AGAIN_AT] = at
            row[AGAIN_PRIORITY] = priority
            row[AGAIN_NOMINAL] = nominal
            return false
        end
        row[RUN_AT], row[PRIORITY], row[NOMINAL] = join(run_at, row[PRIORITY], row[NOMINAL], at, priority, nominal)
        if row[BACKING_OFF] and not hurries then
            row[RUN_AT] = run_at
        end
        return false
    end

    -- The wish that came while the job was active joins it, now that the lease is gone.
    function take_again(row)
        if row[AGAIN_AT] then
            row[RUN_AT], row[PRIORITY], row[NOMINAL] =
                join(row[RUN_AT], row[PRIORITY], row[NOMINAL], row[AGAIN_AT], row[AGAIN_PRIORITY], row[AGAIN_NOMINAL])
        end
        cut(row, JOB_ERROR)
    end
end
