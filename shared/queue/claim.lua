-- Takes up to ARGV[2] due jobs of a pool, in turn over its lanes, each leased for ARGV[3] ms, as far as the limits of the
-- lanes' deployments admit. KEYS: the pool's prefix. ARGV[4]: the payload arq reads for each. ARGV[5]: JSON of
-- {lane or '*': [{key, weight, limit, mark}, ...]}. ARGV[6]: how many calls a tenant without a cap of its own may have under way
-- (0: any). Returns {JSON of {lane, id, key, input tokens, output tokens, the bucket's mark}s, ms until something may be taken or
-- false, {ids of jobs that cannot meet their deadline}, {lanes where jobs wait and every circuit is open}}.
local PATIENCE_MS = 5000
local SAFETY_MS = 1000
local LOOK_TENANTS, LOOK_FLOWS, LOOK_JOBS = 16, 4, 4
local LONGEST_RUN, MOST_DUE = 200, 500
local NEAR_MS, MOST_LATE = 30000, 100
local p = KEYS[1]
local left, lease, payload, all = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], cjson.decode(ARGV[5])
local most_of_one = tonumber(ARGV[6])
local now = now_ms()
local lanes_key = p .. 'lanes'
local taken, late, shut = {}, {}, {}
local usages = {}

local caps = {}
local function caps_in(flow)
  if not caps[flow] then caps[flow] = {caps_of(tenant_of(flow), flow, most_of_one)} end
  return caps[flow][1], caps[flow][2]
end

-- Returns how many more calls a flow may have under way, by its tenant's cap and by its own.
local function room_of(flow)
  local most, own = caps_in(flow)
  return math.min(room_within(most, tenant_of(flow), now), room_within(own, flow, now))
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
  local input, output = drawn_by(job, bucket.limit)
  taken[#taken + 1] = {lane, id, bucket.key, input, output, bucket.mark}
  if job.deadline then redis.call('ZREM', p .. 'deadlines:' .. lane .. ':' .. job.flow, id) end
  if job.flow then
    local most, own = caps_in(job.flow)
    under_way(most, job.tenant, id, now + lease)
    under_way(own, job.flow, id, now + lease)
  end
  left = left - 1
end

-- Takes out of the waiting whoever cannot meet its deadline any more; it ends without having cost anything. Returns whether
-- there was anybody.
local function give_up(lane, flow)
  local name = p .. 'deadlines:' .. lane .. ':' .. flow
  local least, before = least_of(p, lane, tenant_of(flow), now), #late
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', name, '-inf', now + least, 'LIMIT', 0, MOST_LATE)) do
    local job = facts_of(p, lane, id)
    if not job then
      redis.call('ZREM', name, id)
    elseif leave(p, lane, job, id) == 1 then
      redis.call('HDEL', p .. 'facts:' .. lane, id)
      late[#late + 1] = id
      stand_again(p, lane, flow)
    end
  end
  return #late > before
end

-- Returns a flow's first jobs in the order they are taken: those whose deadline is near, then by their place.
local function first_jobs(lane, flow, most)
  local ids = redis.call('ZRANGE', p .. 'waiting:' .. lane .. ':' .. flow, 0, most - 1)
  local near = redis.call('ZRANGEBYSCORE', p .. 'deadlines:' .. lane .. ':' .. flow, '-inf', now + NEAR_MS, 'LIMIT', 0, most)
  if #near == 0 then return ids end
  local seen = {}
  for _, id in ipairs(near) do seen[id] = true end
  for _, id in ipairs(ids) do
    if not seen[id] and #near < most then near[#near + 1] = id end
  end
  return near
end

-- What is in motion and due, a lost lease, a retry, a deferred job, joins those who wait: by its age it is among the first of
-- its flow, and takes nobody else's turn.
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
  local away = job and held_till(p, lane, held_as(job.flow))
  if not job or away and away > now + HOLD_MS
    or not redis.call('ZSCORE', p .. 'waiting:' .. lane .. ':' .. job.flow, held[1]) then
    redis.call('DEL', p .. 'held:' .. lane)
    return nil, false
  end
  return now - held[2] > PATIENCE_MS and held[1] or nil, true, job
end

-- Returns the flows to look at where the first in turn is not admitted.
local function first_flows(lane)
  local flows = {}
  for _, tenant in ipairs(redis.call('ZRANGE', p .. 'turns:' .. lane, 0, LOOK_TENANTS - 1)) do
    for _, flow in ipairs(redis.call('ZRANGE', p .. 'turns:' .. lane .. ':' .. tenant, 0, LOOK_FLOWS - 1)) do
      flows[#flows + 1] = flow
    end
  end
  return flows
end

-- Returns the first job in turn that is admitted, going round larger ones for a while; else nil and the ms to wait.
local function next_in_turn(lane, buckets)
  local late, holds, large = overdue(lane)
  if late and large.deadline then
    give_up(lane, large.flow)
    late, holds, large = overdue(lane)
  end
  if late and room_of(large.flow) > 0 then
    local bucket, wait = admit(buckets, large)
    return bucket and late or nil, large, bucket, wait
  end
  local soonest
  for _, flow in ipairs(first_flows(lane)) do
    give_up(lane, flow)
    for _, id in ipairs(room_of(flow) > 0 and first_jobs(lane, flow, LOOK_JOBS) or {}) do
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

-- Takes the jobs of the first tenant's first flow for as long as it is its turn; returns how many. What is not admitted ends it.
local function take_run(lane, buckets, share)
  local tenants = redis.call('ZRANGE', p .. 'turns:' .. lane, 0, 1, 'WITHSCORES')
  if not tenants[1] then return 0 end
  local tenant, rival = tenants[1], tonumber(tenants[4] or math.huge)
  local scope, tag = lane .. ':' .. tenant, tag_of(p, lane, tenant)
  local flows = redis.call('ZRANGE', p .. 'turns:' .. scope, 0, 1, 'WITHSCORES')
  local flow, sibling, alone = flows[1], tonumber(flows[4] or math.huge), not flows[3]
  if not flow then
    stand_tenant(p, lane, tenant, tag)
    return 0
  end
  -- Where somebody gave up, another may be first.
  if give_up(lane, flow) then return 0 end
  local ids = first_jobs(lane, flow, math.min(share, LONGEST_RUN, room_of(flow)))
  if #ids == 0 then
    stand_again(p, lane, flow)
    return 0
  end
  local own = tag_of(p, scope, flow)
  local facts = redis.call('HMGET', p .. 'facts:' .. lane, unpack(ids))
  local gone, clock, own_clock = {}, tag, own
  for index, id in ipairs(ids) do
    local job = known(lane, parsed(facts[index]))
    if not job then break end
    local lead = job.weight >= URGENT and LEAD or 0
    if index > 1 and (tag - lead > rival or own - lead > sibling) then break end
    local bucket = admit(buckets, job)
    if not bucket then break end
    take(lane, id, bucket, job)
    clock, tag = tag, tag + charge(job)
    -- Who is alone owes its tenant's other flows nothing.
    if not alone then own_clock, own = own, own + charge(job) end
    gone[index] = id
  end
  if #gone > 0 then
    redis.call('ZREM', p .. 'waiting:' .. lane .. ':' .. flow, unpack(gone))
    advance(p, lane, clock)
    if not alone then advance(p, scope, own_clock) end
    stand(p, lane, flow, tag, own, alone and tonumber(flows[2]))
  end
  return #gone
end

-- Puts on hold whoever would be next and has as many calls under way as it may.
local function pass_over_capped(lane)
  while true do
    local tenant = redis.call('ZRANGE', p .. 'turns:' .. lane, 0, 0)[1]
    local flow = tenant and redis.call('ZRANGE', p .. 'turns:' .. lane .. ':' .. tenant, 0, 0)[1]
    if not flow then return end
    local most, own = caps_in(flow)
    if room_within(most, tenant, now) <= 0 then
      hold(p, lane, tenant, now + HOLD_MS)
    elseif room_within(own, flow, now) <= 0 then
      hold(p, lane, held_as(flow), now + HOLD_MS)
    else
      return
    end
  end
end

-- Takes one job, in its turn or when it is overdue.
local function take_one(lane, id, bucket, job)
  local tag, own = tag_of(p, lane, job.tenant), tag_of(p, lane .. ':' .. job.tenant, job.flow)
  redis.call('ZREM', p .. 'waiting:' .. lane .. ':' .. job.flow, id)
  advance(p, lane, tag)
  advance(p, lane .. ':' .. job.tenant, own)
  stand(p, lane, job.flow, tag + charge(job), own + charge(job))
  take(lane, id, bucket, job)
end

-- Returns the ms until more may be taken: 0 where there is more and nothing but the share ended it.
local function take_in_turn(lane, buckets, share)
  while share > 0 do
    if any_caps(most_of_one) then pass_over_capped(lane) end
    local run = overdue(lane) and 0 or take_run(lane, buckets, share)
    share = share - run
    if run == 0 then
      local id, job, bucket, wait = next_in_turn(lane, buckets)
      if not id then return wait or SAFETY_MS end
      take_one(lane, id, bucket, job)
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
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', p .. 'hold:' .. lane, '-inf', now)) do unhold(p, lane, name) end
    share = math.min(share, left)
    local wait = math.min(take_in_turn(lane, buckets, share), SAFETY_MS)
    for _, bucket in ipairs(buckets) do write_bucket(bucket, now) end
    if left < before then
      count_taken(p, lane, before - left, now)
    end
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
return {#taken > 0 and cjson.encode(taken) or '[]', next_ms, late, shut}
