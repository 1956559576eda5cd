//! The scripts that run within the server: each is one atomic step, and one round trip.

use redis::Pipeline;

/// A Lua script and the hash by which the server remembers it.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

/// All scripts of the store.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) lock: Script,
    pub(crate) commit: Script,
    pub(crate) renew: Script,
    pub(crate) release: Script,
}

impl Scripts {
    pub(crate) fn new() -> Scripts {
        let script = |text| Script { text, hash: redis::Script::new(text).get_hash().to_owned() };
        Scripts { lock: script(LOCK), commit: script(COMMIT), renew: script(RENEW), release: script(RELEASE) }
    }
}

impl Script {
    /// The call as a pipeline: by its hash, or with its `whole` text where the server does not know the hash (any
    /// more).
    pub(crate) fn call(&self, whole: bool, keys: &[&[u8]], arguments: &[&[u8]]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2);
        let (command, script) = if whole { ("EVAL", self.text) } else { ("EVALSHA", self.hash.as_str()) };
        pipeline.cmd(command).arg(script).arg(keys.len()).arg(keys).arg(arguments);
        pipeline
    }
}

/// Takes the lock and reads. Keys: record, lock. Arguments: token, milliseconds, claim.
///
/// Who asks a second time with the same token, because the first answer was lost, has the lock.
const LOCK: &str = "\
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return {'locked'} end
local value = redis.call('GET', KEYS[1])
if (ARGV[3] == 'existing' and not value) or (ARGV[3] == 'new' and value) then
  if holder then redis.call('DEL', KEYS[2]) end
  return {'refused'}
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
if not value then return {'held'} end
return {'held', value, redis.call('PTTL', KEYS[1])}
";

/// Checks what must be so, changes the record, and gives the lock back. Keys: record, lock, and for `aside` the counter.
/// Arguments: token (empty without a lock), expectation, change, then what these need: the version that is expected,
/// seconds to live, the new payload; or how many copies are kept and for how many seconds.
///
/// `found` stands for a holder whose record was there when he took the lock and cannot have expired since: where it
/// is gone, somebody has destroyed it without asking for the lock, as php-redis does, and it stays destroyed.
///
/// The lock is given back last: a server that is full refuses a script's first change only.
const COMMIT: &str = "\
local token, expect, change = ARGV[1], ARGV[2], ARGV[3]
local holder = redis.call('GET', KEYS[2])
if token ~= '' then
  if holder ~= token then return {'lost', redis.call('EXISTS', KEYS[1])} end
elseif holder then
  return {'locked'}
end
local function answer(...)
  if token ~= '' then redis.call('DEL', KEYS[2]) end
  return {...}
end
local old
if expect == 'is' or change == 'remove' or change == 'aside' then
  old = redis.call('GET', KEYS[1])
else
  old = redis.call('EXISTS', KEYS[1]) == 1
end
if expect == 'absent' then
  if old then return answer('taken') end
elseif expect ~= 'held' and not old then
  return answer('gone')
end
if expect == 'is' and old ~= ARGV[4] then
  return answer('conflict', old, redis.call('PTTL', KEYS[1]))
end
if change == 'write' then
  redis.call('SETEX', KEYS[1], ARGV[5], ARGV[6])
  return answer('done')
end
if not old then return answer('gone') end
if change == 'touch' then
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  return answer('done')
end
local life = redis.call('PTTL', KEYS[1])
if change == 'aside' then
  local number = redis.call('INCR', KEYS[3]) % tonumber(ARGV[5])
  redis.call('EXPIRE', KEYS[3], ARGV[6])
  redis.call('SETEX', KEYS[3] .. string.format('%d', number), ARGV[6], old)
end
redis.call('DEL', KEYS[1])
return answer('removed', old, life)
";

/// Lets a lock that is still held live on. Key: lock. Arguments: token, milliseconds.
const RENEW: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
";

/// php-redis's own script, letter for letter (`LOCK_RELEASE_LUA_STR`): a server that knows one of them knows both.
const RELEASE: &str =
    r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_given_back_by_php_redis_own_script() {
        assert_eq!(Scripts::new().release.hash, "b70c2384248f88e6b75b9f89241a180f856ad852");
    }

    #[test]
    fn a_script_is_called_by_its_hash_or_its_text() {
        let scripts = Scripts::new();
        let packed = |whole| {
            let call = scripts.release.call(whole, &[b"key"], &[b"token"]).get_packed_pipeline();
            String::from_utf8(call).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let hash = scripts.release.hash.as_str();
        let expected = ["*5", "$7", "EVALSHA", "$40", hash, "$1", "1", "$3", "key", "$5", "token"];
        assert_eq!(packed(false), expected);
        assert_eq!((&packed(true)[2][..], &packed(true)[4][..]), ("EVAL", RELEASE));
    }
}
