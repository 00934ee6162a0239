-- Takes up to ARGV[2] due jobs of a pool, in turn over its lanes, each leased for ARGV[3] ms, as far as the limits of the
-- lanes' deployments admit. KEYS: the pool's prefix. ARGV[4]: the payload arq reads for each. ARGV[5]: JSON of
-- {lane or '*': [{key, weight, limit, mark}, ...]}. ARGV[6]: how many calls a tenant may have under way (0: any). Returns {{lane, id, key, input tokens, output tokens, the bucket's mark,
-- ...}, ms until something may be taken or false, {ids of jobs that cannot meet their deadline}, {lanes where
-- jobs wait and every circuit is open}}.
local PATIENCE_MS = 5000
local SAFETY_MS = 1000
local LOOK_TENANTS, LOOK_JOBS = 16, 4
local LONGEST_RUN, MOST_DUE = 200, 500
local NEAR_MS, MOST_LATE = 30000, 100
local p = KEYS[1]
local left, lease, payload, all = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], cjson.decode(ARGV[5])
local most_of_one = tonumber(ARGV[6])
local now = now_ms()
local lanes_key = p .. 'lanes'
local taken, late, shut = {}, {}, {}
local usages = {}

-- Returns how many more calls a tenant may have under way.
local function room_of(tenant)
  if most_of_one == 0 then return math.huge end
  redis.call('ZREMRANGEBYSCORE', flight_of(tenant), '-inf', now)
  return most_of_one - redis.call('ZCARD', flight_of(tenant))
end

-- Returns what is known of a job, with what its tenant's jobs use.
local function known(lane, job)
  if not job then return nil end
  local name = lane .. '\0' .. job.tenant
  if usages[name] == nil then usages[name] = usage_of(p, lane, job.tenant) or false end
  job.usage = usages[name]
  return job
end

-- Returns the deployment with the most room for a job, or nil and the ms until there is one (nil: nobody knows).
local function admit(buckets, job)
  local best, most, soonest = nil, -1, nil
  for _, bucket in ipairs(buckets) do
    local wait = wait_of(bucket, job, now)
    if wait == 0 then
      local room = bucket.weight / (1 + bucket.drawn)
      for dimension, rate in pairs(bucket.rate) do
        room = math.min(room, bucket.weight * (1 + bucket.level[dimension]) / (1 + rate * 60000))
      end
      if room > most then best, most = bucket, room end
    elseif wait then
      soonest = math.min(soonest or wait, wait)
    end
  end
  return best, soonest
end

local function take(lane, id, bucket, job)
  draw(bucket, job, now)
  bucket.drawn = bucket.drawn + 1
  redis.call('ZADD', p .. 'queue:' .. lane, now + lease, id)
  redis.call('SET', 'arq:job:' .. id, payload, 'PX', 86400000)
  if bucket.free then redis.call('ZADD', p .. 'flight:' .. lane .. ':' .. bucket.key, now + lease, id) end
  taken[#taken + 1] = lane
  taken[#taken + 1] = id
  taken[#taken + 1] = bucket.key
  taken[#taken + 1], taken[#taken + 2] = drawn_by(job, bucket.limit)
  taken[#taken + 1] = bucket.mark
  if job.deadline then redis.call('ZREM', p .. 'deadlines:' .. lane .. ':' .. job.tenant, id) end
  if most_of_one > 0 and job.tenant then
    redis.call('ZADD', flight_of(job.tenant), now + lease, id)
    redis.call('PEXPIRE', flight_of(job.tenant), 3600000)
  end
  left = left - 1
end

-- Takes out of the waiting whoever cannot meet its deadline any more; it ends without having cost anything.
local function give_up(lane, tenant)
  local name = p .. 'deadlines:' .. lane .. ':' .. tenant
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', name, '-inf', now + least_of(p, lane, tenant, now), 'LIMIT', 0, MOST_LATE)) do
    local job = facts_of(p, lane, id)
    if not job then
      redis.call('ZREM', name, id)
    elseif leave(p, lane, job, id) == 1 then
      redis.call('HDEL', p .. 'facts:' .. lane, id)
      late[#late + 1] = id
      stand(p, lane, tenant, tonumber(redis.call('HGET', p .. 'tags:' .. lane, tenant) or 0))
    end
  end
end

-- Returns a tenant's first jobs in the order they are taken: those whose deadline is near, then by their place.
local function first_jobs(lane, tenant, most)
  local ids = redis.call('ZRANGE', p .. 'waiting:' .. lane .. ':' .. tenant, 0, most - 1)
  local near = redis.call('ZRANGEBYSCORE', p .. 'deadlines:' .. lane .. ':' .. tenant, '-inf', now + NEAR_MS, 'LIMIT', 0, most)
  if #near == 0 then return ids end
  local seen = {}
  for _, id in ipairs(near) do seen[id] = true end
  for _, id in ipairs(ids) do
    if not seen[id] and #near < most then near[#near + 1] = id end
  end
  return near
end

-- What is in motion and due, a lost lease, a retry, a deferred job, joins those who wait: by its age it is among the first of
-- its tenant, and takes nobody else's turn.
local function join_due(lane, buckets)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. 'queue:' .. lane, '-inf', now, 'LIMIT', 0, MOST_DUE)) do
    local job = facts_of(p, lane, id)
    if job then
      redis.call('ZREM', p .. 'queue:' .. lane, id)
      wait_turn(p, lane, id, job)
    elseif left > 0 then
      -- What was known of it was lost with an emptied Redis: nobody can say whose turn it would be.
      local unknown = {input = 0, output = 0, weight = 1}
      local bucket = admit(buckets, unknown)
      if bucket then take(lane, id, bucket, unknown) end
    end
  end
end

-- Returns the job that has held its place for long enough that nothing goes round it any more, so that what it needs can
-- gather; and whether any job holds its place.
local function overdue(lane)
  local held = redis.call('HMGET', p .. 'held:' .. lane, 'id', 'since')
  if not held[1] then return nil, false end
  local job = known(lane, facts_of(p, lane, held[1]))
  if not job or not redis.call('ZSCORE', p .. 'waiting:' .. lane .. ':' .. job.tenant, held[1]) then
    redis.call('DEL', p .. 'held:' .. lane)
    return nil, false
  end
  return now - held[2] > PATIENCE_MS and held[1] or nil, true, job
end

-- Returns the first job in turn that is admitted, going round larger ones for a while; else nil and the ms to wait.
local function next_in_turn(lane, buckets)
  local late, holds, large = overdue(lane)
  if late and large.deadline then
    give_up(lane, large.tenant)
    late, holds, large = overdue(lane)
  end
  if late and room_of(large.tenant) > 0 then
    local bucket, wait = admit(buckets, large)
    return bucket and late or nil, large, bucket, wait
  end
  local soonest
  for place = 1, LOOK_TENANTS do
    local tenant = redis.call('ZRANGE', p .. 'turns:' .. lane, place - 1, place - 1)[1]
    if not tenant then break end
    give_up(lane, tenant)
    for _, id in ipairs(room_of(tenant) > 0 and first_jobs(lane, tenant, LOOK_JOBS) or {}) do
      local job = known(lane, facts_of(p, lane, id))
      if not job then break end
      local bucket, wait = admit(buckets, job)
      if bucket then return id, job, bucket end
      if not holds then
        redis.call('HSET', p .. 'held:' .. lane, 'id', id, 'since', now)
        redis.call('PEXPIRE', p .. 'held:' .. lane, 3600000)
        holds = true
      end
      if wait then soonest = math.min(soonest or wait, wait) end
    end
  end
  return nil, nil, nil, soonest
end

-- Takes the first tenant's jobs for as long as it is its turn; returns how many. What is not admitted ends it.
local function take_run(lane, buckets, share)
  local first = redis.call('ZRANGE', p .. 'turns:' .. lane, 0, 1, 'WITHSCORES')
  if not first[1] then return 0 end
  local tenant, rival = first[1], tonumber(first[4] or math.huge)
  local tag = tonumber(redis.call('HGET', p .. 'tags:' .. lane, tenant) or 0)
  local waiting = p .. 'waiting:' .. lane .. ':' .. tenant
  give_up(lane, tenant)
  local ids = first_jobs(lane, tenant, math.min(share, LONGEST_RUN, room_of(tenant)))
  if #ids == 0 then
    stand(p, lane, tenant, tag)
    return 0
  end
  local facts = redis.call('HMGET', p .. 'facts:' .. lane, unpack(ids))
  local gone, clock = {}, tag
  for index, id in ipairs(ids) do
    local job = known(lane, parsed(facts[index]))
    if not job or (index > 1 and tag - (job.weight >= URGENT and LEAD or 0) > rival) then break end
    local bucket = admit(buckets, job)
    if not bucket then break end
    take(lane, id, bucket, job)
    clock, tag = tag, tag + charge(job)
    gone[index] = id
  end
  if #gone > 0 then
    redis.call('ZREM', waiting, unpack(gone))
    advance(p, lane, clock)
    stand(p, lane, tenant, tag)
  end
  return #gone
end

-- Returns the ms until more may be taken: 0 where there is more and nothing but the share ended it.
local function take_in_turn(lane, buckets, share)
  while share > 0 do
    local first = most_of_one > 0 and redis.call('ZRANGE', p .. 'turns:' .. lane, 0, 0)[1]
    while first and room_of(first) <= 0 do
      hold(p, lane, first, now)
      first = redis.call('ZRANGE', p .. 'turns:' .. lane, 0, 0)[1]
    end
    local run = overdue(lane) and 0 or take_run(lane, buckets, share)
    share = share - run
    if run == 0 then
      local id, job, bucket, wait = next_in_turn(lane, buckets)
      if not id then return wait or SAFETY_MS end
      local tag = tonumber(redis.call('HGET', p .. 'tags:' .. lane, job.tenant) or 0)
      redis.call('ZREM', p .. 'waiting:' .. lane .. ':' .. job.tenant, id)
      advance(p, lane, tag)
      stand(p, lane, job.tenant, tag + charge(job))
      take(lane, id, bucket, job)
      share = share - 1
    end
  end
  return 0
end

local function buckets_of(lane)
  local buckets = {}
  for _, one in ipairs(all[lane] or all['*'] or {}) do
    local bucket = read_bucket(p, lane, one[1], one[3], now, one[4])
    bucket.weight, bucket.drawn = one[2], 0
    buckets[#buckets + 1] = bucket
  end
  return buckets
end

-- Whether there is nobody to call: each deployment's circuit is open, its key was refused, or it rests for long.
local function all_shut(buckets)
  for _, bucket in ipairs(buckets) do
    if (not bucket.open or bucket.open <= now) and bucket.rest <= now + LONG_REST_MS then return false end
  end
  return #buckets > 0
end

local lanes = redis.call('ZRANGEBYSCORE', lanes_key, '-inf', now, 'LIMIT', 0, 64)
for index, lane in ipairs(lanes) do
  if left > 0 then
    local buckets = buckets_of(lane)
    redis.call('ZADD', p .. 'seen', now, lane)
    local before = left
    local share = math.ceil(left / (#lanes - index + 1))
    join_due(lane, buckets)
    for _, tenant in ipairs(redis.call('ZRANGEBYSCORE', p .. 'hold:' .. lane, '-inf', now)) do unhold(p, lane, tenant) end
    share = math.min(share, left)
    local wait = math.min(take_in_turn(lane, buckets, share), SAFETY_MS)
    for _, bucket in ipairs(buckets) do write_bucket(bucket, now) end
    if left < before then
      count_taken(p, lane, before - left, now)
    end
    redis.call('ZREMRANGEBYSCORE', p .. 'past:' .. lane, '-inf', redis.call('GET', p .. 'clock:' .. lane) or 0)
    -- When this lane next has something: when a bucket admits it, now (behind the other lanes), at the earliest time in
    -- motion, or never.
    local first = redis.call('ZRANGE', p .. 'queue:' .. lane, 0, 0, 'WITHSCORES')
    if redis.call('EXISTS', p .. 'turns:' .. lane) == 1 or (first[2] and tonumber(first[2]) <= now) then
      redis.call('ZADD', lanes_key, now + wait, lane)
      if all_shut(buckets) then shut[#shut + 1] = lane end
    elseif first[2] or redis.call('EXISTS', p .. 'hold:' .. lane) == 1 then
      local held = redis.call('ZRANGE', p .. 'hold:' .. lane, 0, 0, 'WITHSCORES')
      redis.call('ZADD', lanes_key, math.min(tonumber(first[2] or math.huge), tonumber(held[2] or math.huge)), lane)
    else
      redis.call('ZREM', lanes_key, lane)
      redis.call('PEXPIRE', p .. 'clock:' .. lane, 600000)
    end
  end
end

local next_lane = redis.call('ZRANGE', lanes_key, 0, 0, 'WITHSCORES')
local next_ms = false
if next_lane[2] then
  next_ms = tostring(math.max(0, next_lane[2] - now))
  -- What is left is for whoever has a free slot.
  if next_ms == '0' and #taken > 0 then wake(p) end
end
return {taken, next_ms, late, shut}
