-- Admits what fits into the minute of each of its subjects, or tells how long it would have to wait.
-- KEYS[1] what a subject's keys begin with
-- ARGV    the time in ms, '' for Redis's own; JSON: [[[subject, requests a minute, tokens a minute (0: any number),
--         requests, tokens], …], …], a list for each of those that ask: all its subjects admit it, or none counts it
-- Returns JSON: for each, for each of its subjects, [requests and tokens of the last minute, ms until none of them
--         counts, ms until there is room for the requests, for the tokens]
--
-- A subject's list holds marks `at:requests:tokens`, the sums over all that came up to `at`. The first mark is a minute
-- old, or 0:0:0; so the last minute is the last mark less the first. What comes within a SLOT shares a mark, at the time
-- of the last of it, so it counts for a minute at least, and the list has at most MINUTE / SLOT marks.
-- What is larger than its limit goes when nothing else counts; then it is owed (`subject:owed`, the same three numbers,
-- of itself alone) and takes up the whole limit for as many minutes as its size is of the limit.

local MINUTE, SLOT = 60000, 100

local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + time[2] / 1000
end

local function parsed(mark)
    local at, requests, tokens = string.match(mark, '(%d+):(%d+):(%d+)')
    return {at = tonumber(at), tonumber(requests), tonumber(tokens)}
end

local function shown(mark)
    return string.format('%.0f:%.0f:%.0f', mark.at, mark[1], mark[2])
end

local function mark_at(stand, index)
    return parsed(redis.call('LINDEX', stand.key, index))
end

-- Returns the last of a list's marks for which `holds` does: it does for the first, and up to somewhere.
local function last_where(stand, holds)
    local low, high = 0, stand.length - 1
    if high > 0 and not holds(mark_at(stand, 1)) then return 0 end -- as mostly
    while low < high do
        local middle = math.ceil((low + high) / 2)
        if holds(mark_at(stand, middle)) then low = middle else high = middle - 1 end
    end
    return low
end

local stands = {}

local function stand_of(subject)
    local stand = stands[subject]
    if stand then return stand end
    stand = {key = KEYS[1] .. subject, first = {at = 0, 0, 0}, last = {at = 0, 0, 0}}
    stand.length = redis.call('LLEN', stand.key)
    if stand.length > 0 then
        local old = last_where(stand, function(mark) return mark.at + MINUTE <= now end)
        if old > 0 then
            redis.call('LTRIM', stand.key, old, -1)
            stand.length = stand.length - old
        end
        stand.first, stand.last = mark_at(stand, 0), mark_at(stand, -1)
    end
    local owed = redis.call('GET', stand.key .. ':owed')
    stand.owed = owed and parsed(owed) or {at = 0, 0, 0}
    stands[subject] = stand
    return stand
end

-- How many ms something takes up a whole limit.
local function lasts(size, limits)
    local share = 1
    for kind = 1, 2 do
        if limits[kind] > 0 then share = math.max(share, size[kind] / limits[kind]) end
    end
    return MINUTE * share
end

-- Returns how many of a kind count, how many of them are owed, and the ms until these are not.
local function used(stand, kind, limits)
    local left, owed = stand.owed.at + lasts(stand.owed, limits) - now, 0
    if left > 0 then
        owed = limits[kind] > 0 and math.min(stand.owed[kind], limits[kind]) or stand.owed[kind]
    end
    return stand.last[kind] - stand.first[kind] + owed, owed, left
end

-- Returns the ms until there is room for so many of a kind.
local function wait(stand, kind, size, limits)
    local limit = limits[kind]
    if limit == 0 then return 0 end
    local count, owed, left = used(stand, kind, limits)
    local wanted, ms = math.min(size[kind], limit), 0
    if count + wanted <= limit then return 0 end
    if owed + wanted > limit then ms, owed = left, 0 end
    local sum = stand.last[kind] + owed + wanted - limit
    if sum > stand.first[kind] then
        local before = last_where(stand, function(mark) return mark[kind] < sum end)
        ms = math.max(ms, mark_at(stand, before + 1).at + MINUTE - now)
    end
    return ms
end

local function count(stand, size, limits)
    local ms = lasts(size, limits)
    if ms > MINUTE then
        local _, owed = used(stand, 1, limits)
        if owed > 0 then -- of the other kind alone
            size = {size[1] + stand.owed[1], size[2] + stand.owed[2]}
            ms = lasts(size, limits)
        end
        stand.owed = {at = math.ceil(now), size[1], size[2]}
        redis.call('SET', stand.key .. ':owed', shown(stand.owed), 'PX', string.format('%.0f', math.ceil(ms)))
        return
    end
    local last = stand.last
    if stand.length == 0 then
        redis.call('RPUSH', stand.key, shown(stand.first))
        stand.length = 1
    end
    local mark = {at = math.max(math.ceil(now), last.at), last[1] + size[1], last[2] + size[2]}
    if stand.length > 1 and math.floor(last.at / SLOT) == math.floor(mark.at / SLOT) then
        redis.call('LSET', stand.key, -1, shown(mark))
    else
        redis.call('RPUSH', stand.key, shown(mark))
        stand.length = stand.length + 1
    end
    stand.last = mark
    redis.call('PEXPIRE', stand.key, MINUTE + 1000)
end

local function ask(asked)
    local waits, admitted = {}, true
    for index, one in ipairs(asked) do
        local stand, limits, size = stand_of(one[1]), {one[2], one[3]}, {one[4], one[5]}
        waits[index] = {wait(stand, 1, size, limits), wait(stand, 2, size, limits)}
        admitted = admitted and waits[index][1] == 0 and waits[index][2] == 0
    end
    local answer = {}
    for index, one in ipairs(asked) do
        local stand, limits = stand_of(one[1]), {one[2], one[3]}
        if admitted then count(stand, {one[4], one[5]}, limits) end
        local requests, _, left = used(stand, 1, limits)
        local tokens = used(stand, 2, limits)
        if stand.last[1] > stand.first[1] then left = math.max(left, stand.last.at + MINUTE - now) end
        answer[index] = {requests, tokens, math.max(left, 0), waits[index][1], waits[index][2]}
    end
    return answer
end

local answers = {}
for index, asked in ipairs(cjson.decode(ARGV[2])) do
    answers[index] = ask(asked)
end
return cjson.encode(answers)
