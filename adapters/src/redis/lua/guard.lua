-- A clock that stepped back is minded first, page by page (mend.lua). A step of a second is ordinary wobble.
local WOBBLE_MS = 1000
if meta[MENDING] or meta[CHANGED_AT] - now > WOBBLE_MS then
    return pack(now, 'mend')
end
