-- Takes jobs out of motion. KEYS: the pool's prefix. ARGV: lane, id, due (ms; -1: it left the queue), `=` and the key of its
-- deployment ('': it had none), requests, input and output tokens that come back to the key's buckets (below 0: what it used besides), input and output tokens that were used
-- (-1: nobody knows), ms that its call took (-1: it did not go well), when it was drawn for (ms), repeated.
local p = KEYS[1]
local now = now_ms()
local fresh = false
local back, called, used = {}, {}, {}

local function gather(groups, lane, name, one)
  local key = lane .. '\0' .. name
  groups[key] = groups[key] or {lane = lane, name = name}
  table.insert(groups[key], one)
end

for i = 2, #ARGV, 11 do
  local lane, id, due, key = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]:match('^=(.*)$')
  local used_input, used_output, took = tonumber(ARGV[i + 7]), tonumber(ARGV[i + 8]), tonumber(ARGV[i + 9])
  local at = tonumber(ARGV[i + 10])
  local queue = p .. 'queue:' .. lane
  local job = facts_of(p, lane, id)
  if job and leave(p, lane, job, id) == 1 then
    stand(p, lane, job.tenant, tonumber(redis.call('HGET', p .. 'tags:' .. lane, job.tenant) or 0))
  end
  if key then
    give_back(p, lane, key, tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]))
    redis.call('ZREM', p .. 'flight:' .. lane .. ':' .. key, id)
    redis.call('ZADD', p .. 'lanes', 'LT', 'XX', now, lane)
    fresh = true
  end
  if key then gather(back, lane, key, {took = took, at = at}) end
  if job and key and redis.call('ZREM', flight_of(job.tenant), id) == 1 then unhold(p, lane, job.tenant) end
  if key and took >= 0 then gather(called, lane, key, took) end
  if job and used_output >= 0 then gather(used, lane, job.tenant, {job.input, used_input, used_output, took}) end
  if due < 0 then
    redis.call('ZREM', queue, id)
    redis.call('HDEL', p .. 'facts:' .. lane, id)
  else
    redis.call('ZADD', queue, due, id)
    redis.call('ZADD', p .. 'lanes', 'LT', due, lane)
    fresh = fresh or due <= now
  end
  redis.call('DEL', 'arq:job:' .. id, 'arq:retry:' .. id)
end

for _, calls in pairs(back) do
  local name = bucket_key(p, calls.lane, calls.name)
  local held = redis.call('HMGET', name, 'back', 'open', 'probing', 'opened')
  if held[1] then redis.call('HINCRBY', name, 'back', #calls) end
  for _, call in ipairs(held[2] and calls or {}) do
    if call.took >= 0 and call.at >= tonumber(held[4]) then
      redis.call('HDEL', name, 'open', 'opened', 'opens', 'why', 'probing')
    elseif held[3] and call.at >= tonumber(held[3]) and redis.call('HDEL', name, 'probing') == 1 then
      -- The call that tried came back without a word on the provider: the next one tries.
      redis.call('HSET', name, 'open', now)
    end
  end
end

-- Calls that went well: how long they took, that the circuit is sound, and that more may go.
for _, calls in pairs(called) do
  local name = bucket_key(p, calls.lane, calls.name)
  local held = fields_of(name)
  local mean, dev = held.mean, held.dev or 0
  for _, took in ipairs(calls) do
    mean = mean or took
    dev = dev + (math.abs(took - mean) - dev) / 4
    mean = mean + (took - mean) / 8
  end
  local bad, good = faded(held.bad, held.good, held.judged, now)
  good = good + #calls
  redis.call('HSET', name, 'mean', mean, 'dev', dev, 'calls', math.min((held.calls or 0) + #calls, 1000000), 'good', good,
    'bad', bad, 'judged', now, 'streak', 0)
  if held.pace then
    -- What is used grows by a sixth a second up to near where it was refused, and from there with care.
    local step = held.pace < 0.9 * held.ceiling and 10 or 0.3
    if lately(good) > held.pace / 2 then redis.call('HSET', name, 'pace', held.pace + step * #calls) end
  elseif not held.wide then
    -- A window that is used grows by half each time that its calls come back.
    local window = held.window or FIRST_WINDOW
    if redis.call('ZCARD', p .. 'flight:' .. calls.lane .. ':' .. calls.name) + #calls >= window / 3 then
      window = window + #calls / 2
      redis.call('HSET', name, window > WIDE and 'wide' or 'window', window)
    end
  end
  keep(name)
end

for _, ended in pairs(used) do
  local known = usage_of(p, ended.lane, ended.name)
  for _, one in ipairs(ended) do
    local estimate, input, output, took = one[1], one[2], one[3], one[4]
    local ratio = math.max(0.1, math.min(10, estimate > 0 and input / estimate or 1))
    known = known or {mean = output, dev = output / 2, ratio = ratio, calls = 0, fast = took, at = now}
    -- One odd answer must not weigh on all that follow.
    output = math.min(output, 1000 + 4 * (known.mean + 4 * known.dev))
    if took >= 0 then
      -- Near the fastest of late: it follows a faster call at once, and slower ones slowly.
      known.fast = math.min(took, known.fast + 0.05 * (took - known.fast))
      known.calls, known.at = math.min(known.calls + 1, 1000), now
    end
    known.dev = known.dev + (math.abs(output - known.mean) - known.dev) / 8
    known.mean = known.mean + (output - known.mean) / 16
    known.ratio = known.ratio + (ratio - known.ratio) / 16
  end
  local name = usage_key(p, ended.lane)
  redis.call('HSET', name, ended.name, string.format('%.1f:%.1f:%.3f:%d:%.1f:%.0f', known.mean, known.dev, known.ratio,
    known.calls, known.fast, known.at))
  redis.call('PEXPIRE', name, 86400000)
end
if fresh then wake(p) end
