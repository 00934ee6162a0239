-- Draws once more for a job in motion whose call has brought nothing for long: for a second call, which is in motion under an id
-- of its own until `move` ends it, or until it lapses and the claim's SQL does not know it. KEYS: the pool's prefix. ARGV: lane,
-- the job's id, the key of its call, ms that it has been waited for, ms after which it is late ('': the p95 of the lane's calls),
-- the second call's id, ms that it may take, JSON of {lane or '*': [{key, weight, limit, mark}, ...]}, how many calls a tenant
-- without a cap of its own may have under way (0: any). Returns {key, input tokens, output tokens, the bucket's mark}, the ms
-- until the call is late (as text), or false where there is to be no second one.
local FEW_CALLS = 10
local p, lane, id, key = KEYS[1], ARGV[2], ARGV[3], ARGV[4]
local waited, late_after, second, longest = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local all, most_of_one = cjson.decode(ARGV[9]), tonumber(ARGV[10])
local now = now_ms()

local buckets, calls, slow = {}, 0, 0
for _, one in ipairs(all[lane] or all['*'] or {}) do
  local bucket = read_bucket(p, lane, one[1], one[3], now, one[4])
  bucket.weight = one[2]
  buckets[#buckets + 1] = bucket
  local held = bucket.held
  if held.calls then calls, slow = calls + held.calls, slow + held.calls * (held.mean + 2 * held.dev) end
end
if not late_after then
  if calls < FEW_CALLS then return false end
  late_after = slow / calls
end
if waited < late_after then return tostring(late_after - waited) end

local job = facts_of(p, lane, id)
if not job or tonumber(redis.call('ZSCORE', p .. 'queue:' .. lane, id) or 0) <= now then return false end
job.usage = usage_of(p, lane, job.tenant)

-- Whoever waits because the limits did not admit it goes first, and a tenant at its cap has no more calls.
local holder = redis.call('HGET', p .. 'held:' .. lane, 'id')
local large = holder and facts_of(p, lane, holder)
if large and redis.call('ZSCORE', p .. 'waiting:' .. lane .. ':' .. large.flow, holder) then return false end
local most_of_tenant, most_of_flow = caps_of(job.tenant, job.flow, most_of_one)
if room_within(most_of_tenant, job.tenant, now) <= 0 or room_within(most_of_flow, job.flow, now) <= 0 then return false end
if held_till(p, lane, job.tenant) or held_till(p, lane, held_as(job.flow)) then return false end

-- Another key rather than the same, then the one with the most room. A circuit that was open tries with a job's own call.
local best, most = nil, -1
for _, bucket in ipairs(buckets) do
  if not bucket.open and wait_of(bucket, job, now) == 0 then
    local room = bucket.weight
    for dimension, rate in pairs(bucket.rate) do
      room = math.min(room, bucket.weight * (1 + bucket.level[dimension]) / (1 + rate * 60000))
    end
    if bucket.key == key then room = 0 end
    if room > most then best, most = bucket, room end
  end
end
if not best then return false end

draw(best, job, now)
write_bucket(best, now)
local till = now + longest
redis.call('ZADD', p .. 'queue:' .. lane, till, second)
redis.call('ZADD', p .. 'lanes', 'LT', till, lane)
-- Its facts are the job's, but for the deadline: it is given back in motion, never waited for.
redis.call('HSET', p .. 'facts:' .. lane, second,
  string.format('%d:%d:%g:%d:0:%s', job.input, job.output, job.weight, job.order, job.flow))
if best.free then redis.call('ZADD', p .. 'flight:' .. lane .. ':' .. best.key, till, second) end
under_way(most_of_tenant, job.tenant, second, till)
under_way(most_of_flow, job.flow, second, till)

-- It is charged to its tenant and flow as any other, wherever they stand now.
local function charged(scope, name)
  local tag = redis.call('HGET', p .. 'tags:' .. scope, name)
  return tonumber(tag or start_of(p, scope, name)) + charge(job)
end
stand(p, lane, job.flow, charged(lane, job.tenant), charged(lane .. ':' .. job.tenant, job.flow))

local input, output = drawn_by(job, best.limit)
return {best.key, input, output, best.mark}
