-- Where a waiting job stands. KEYS: the pool's prefix. ARGV: lane, id. Returns {jobs that go before it, jobs/s of the lane}, or
-- false for a job that does not wait there.
local p, lane, id = KEYS[1], ARGV[2], ARGV[3]
local now = now_ms()
local job = facts_of(p, lane, id)
local rank = job and redis.call('ZRANK', p .. 'waiting:' .. lane .. ':' .. job.tenant, id)
if not rank then return false end
local before = rank
for _, tenant in ipairs(redis.call('ZRANGE', p .. 'turns:' .. lane, 0, 499)) do
  if tenant ~= job.tenant then
    before = before + math.min(redis.call('ZCARD', p .. 'waiting:' .. lane .. ':' .. tenant), rank + 1)
  end
end
return {before, tostring(pace_of(p, lane, now))}
