-- How lanes stand. KEYS: the pool's prefix. ARGV: JSON of {lane or '*': [{key, weight, limit, mark}, ...]}, then lanes. Returns
-- JSON, for each lane {waiting, in motion, jobs/s, ms a call takes or null, their deviation, [deployment, ...]}.
local p = KEYS[1]
local now = now_ms()
local all = cjson.decode(ARGV[2])
local found = {}
for index = 3, #ARGV do
  local lane = ARGV[index]
  local waiting, seen = 0, {}
  for _, names in ipairs({'turns:', 'hold:'}) do
    for _, name in ipairs(redis.call('ZRANGE', p .. names .. lane, 0, 999)) do
      local tenant = tenant_of(name)
      for _, flow in ipairs(seen[tenant] and {} or flows_of(p, lane, tenant)) do
        waiting = waiting + redis.call('ZCARD', p .. 'waiting:' .. lane .. ':' .. flow)
      end
      seen[tenant] = true
    end
  end
  local mean, dev, calls, deployments = 0, 0, 0, {}
  for place, one in ipairs(all[lane] or all['*'] or {}) do
    local bucket = read_bucket(p, lane, one[1], one[3], now, one[4])
    local held = bucket.held
    if held.calls then
      mean, dev, calls = mean + held.mean * held.calls, dev + held.dev * held.calls, calls + held.calls
    end
    local health = not bucket.open and 'closed' or bucket.open <= now and 'half_open' or held.why == 'errors' and 'open' or 'out'
    local shown = {key = one[1], health = health, resting = math.max(0, bucket.rest - now) / 1000, limits = {}, learned = {}, left = {}}
    for dimension, value in pairs(bucket.limit) do
      value = bucket.rate[dimension] and bucket.rate[dimension] * 60000 or value
      if type(value) == 'number' then
        shown.limits[dimension] = value
        if one[3][dimension] ~= value then shown.learned[dimension] = value end
      end
    end
    for dimension, level in pairs(bucket.level) do shown.left[dimension] = level end
    shown.in_flight = bucket.free and bucket.limit.flight - bucket.free or cjson.null
    deployments[place] = shown
  end
  local pace = pace_of(p, lane, now)
  found[index - 2] = {waiting, redis.call('ZCARD', p .. 'queue:' .. lane), pace, calls > 0 and mean / calls or cjson.null,
    calls > 0 and dev / calls or 0, deployments}
end
return cjson.encode(found)
