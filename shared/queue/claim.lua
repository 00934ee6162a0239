-- Takes up to ARGV[1] due jobs of a pool, in turn over its lanes, each leased for ARGV[2] ms. KEYS: the pool's prefix.
-- ARGV[3]: the payload arq reads for each. Returns {{lane, id, lane, id, ...}, ms until a lane is next due or false}.
local p = KEYS[1]
local left, lease, payload = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local lanes_key, rest_key = p .. 'lanes', p .. 'rest'
local taken = {}

local function take(lane, id)
  redis.call('ZADD', p .. 'queue:' .. lane, now + lease, id)
  redis.call('SET', 'arq:job:' .. id, payload, 'PX', 86400000)
  taken[#taken + 1] = lane
  taken[#taken + 1] = id
  left = left - 1
end

local lanes = redis.call('ZRANGEBYSCORE', lanes_key, '-inf', now, 'LIMIT', 0, 64)
for index, lane in ipairs(lanes) do
  local resting = tonumber(redis.call('ZSCORE', rest_key, lane) or 0)
  if resting > now then
    redis.call('ZADD', lanes_key, resting, lane)
  elseif left > 0 then
    if resting > 0 then redis.call('ZREM', rest_key, lane) end
    local queue, waiting = p .. 'queue:' .. lane, p .. 'waiting:' .. lane
    local share = math.ceil(left / (#lanes - index + 1))
    local due = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'LIMIT', 0, share)
    for _, id in ipairs(due) do take(lane, id) end
    if share > #due then
      local popped = redis.call('ZPOPMIN', waiting, share - #due)
      for i = 1, #popped, 2 do take(lane, popped[i]) end
    end
    -- When this lane next has something: now (behind the other lanes), at the earliest time in motion, or never.
    local first = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
    if redis.call('EXISTS', waiting) == 1 then
      redis.call('ZADD', lanes_key, now, lane)
    elseif first[2] then
      redis.call('ZADD', lanes_key, first[2], lane)
    else
      redis.call('ZREM', lanes_key, lane)
    end
  end
end

local next_lane = redis.call('ZRANGE', lanes_key, 0, 0, 'WITHSCORES')
local next_ms = false
if next_lane[2] then
  next_ms = tostring(math.max(0, next_lane[2] - now))
  -- What is left is for whoever has a free slot.
  if next_ms == '0' and #taken > 0 then
    redis.call('RPUSH', p .. 'wake', '1')
    redis.call('LTRIM', p .. 'wake', -16, -1)
  end
end
return {taken, next_ms}
