-- Finds keys that are out, or with which a circuit is open, for somebody to ask their provider after; or notes what it said.
-- KEYS: the pool's prefix. ARGV: JSON of {lane or '*': [{key, weight, limit, mark}, ...]}, ms between looks of a pool, ms between
-- questions about a key; then, to note an answer, the key, its mark, when it was asked for (ms), and `well` or `refused`.
-- Returns {key, mark, ms}s to ask for.
local MOST_LANES = 200
-- A circuit is left alone at first. A key that is refused again stays out for longer than until the next question, but not
-- for ever: one that may do all but list models would never come back.
local GRACE_MS, REFUSED_MS, LONGEST_REFUSED_MS = 1000, 30000, 600000
local p = KEYS[1]
local now = now_ms()
local all = cjson.decode(ARGV[2])

-- Calls `act` for each deployment that is not well; of `only` one key's where that is given.
local function each_unwell(only, act)
  local looked = {}
  for _, name in ipairs({'lanes', 'seen'}) do
    for _, lane in ipairs(redis.call('ZREVRANGE', p .. name, 0, MOST_LANES - 1)) do
      for _, one in ipairs(not looked[lane] and (all[lane] or all['*']) or {}) do
        if not only or one[1] == only then
          local name = bucket_key(p, lane, one[1])
          local held = redis.call('HMGET', name, 'open', 'why', 'opened', 'probing')
          local open, why, opened = tonumber(held[1]), held[2], tonumber(held[3] or 0)
          if open and (why == 'errors' or why == one[4]) then
            -- One whose time has come, and one that a job tries just now, needs no help; but a job need not try a key in vain.
            local waits = open > now and not held[4]
            if waits or (why ~= 'errors' and not held[4]) then
              act({name = name, lane = lane, key = one[1], mark = one[4] or '', out = why ~= 'errors', open = open, opened = opened})
            end
          end
        end
      end
      looked[lane] = true
    end
  end
end

if ARGV[5] then
  local asked, brought_back = tonumber(ARGV[7]), false
  each_unwell(ARGV[5], function(one)
    if one.mark ~= ARGV[6] or one.opened > asked then return end
    if ARGV[8] == 'well' then
      redis.call('HSET', one.name, 'open', math.min(one.open, now))
      redis.call('ZADD', p .. 'lanes', 'LT', 'XX', now, one.lane)
      brought_back = true
    elseif one.out and now - one.opened < LONGEST_REFUSED_MS then
      redis.call('HSET', one.name, 'open', math.max(one.open, now + REFUSED_MS))
      keep(one.name)
    end
  end)
  if brought_back then wake(p) end
  return {}
end

local found = {}
if not redis.call('SET', p .. 'probing', 1, 'NX', 'PX', ARGV[3]) then return found end
each_unwell(nil, function(one)
  if now - one.opened < GRACE_MS then return end
  if redis.call('SET', p .. 'probe:' .. one.key .. ':' .. one.mark, 1, 'NX', 'PX', ARGV[4]) then
    found[#found + 1] = {one.key, one.mark, string.format('%.3f', now)}
  end
end)
return found
