//! The operations of `wasmcloud:keyvalue` as Redis commands (`protocol/interfaces.md §4`).
//!
//! The choices where the contract is silent are those of the first-party provider: lists are appended to, `ListDel` takes
//! the first such element away.

use latticed::{
    error::{Error, Result},
    sdk::{self, Call},
    wire::interface::{GetResponse, IncrementRequest, ListRangeRequest, ListValueRequest, SetRequest, SetValueRequest},
};
use redis::cmd;

use crate::redis_link::{RedisLink, Twice};

/// Answers `call` from `redis`.
///
/// # Errors
/// The request cannot be read, the operation is unknown, or Redis fails or refuses.
pub async fn answer(redis: &RedisLink, call: &Call) -> Result<Vec<u8>> {
    match call.operation.as_str() {
        "KeyValue.Get" => {
            let key: String = call.request()?;
            let value: Option<String> = redis.ask(cmd("GET").arg(key), Twice::Same).await?;
            let exists = value.is_some();
            sdk::encode(&GetResponse { value: value.unwrap_or_default(), exists })
        }
        "KeyValue.Set" => {
            let SetRequest { key, value, expires } = call.request()?;
            let mut command = cmd("SET");
            command.arg(key).arg(value);
            if expires > 0 {
                command.arg("EX").arg(expires);
            }
            let () = redis.ask(&command, Twice::Same).await?;
            Ok(Vec::new())
        }
        "KeyValue.Del" | "KeyValue.ListClear" | "KeyValue.SetClear" => {
            let key: String = call.request()?;
            // Whether it was there is part of the answer, so a second time differs.
            let removed: u32 = redis.ask(cmd("DEL").arg(key), Twice::Differs).await?;
            sdk::encode(&(removed > 0))
        }
        "KeyValue.Contains" => {
            let key: String = call.request()?;
            let found: u32 = redis.ask(cmd("EXISTS").arg(key), Twice::Same).await?;
            sdk::encode(&(found > 0))
        }
        "KeyValue.Increment" => {
            let IncrementRequest { key, value } = call.request()?;
            let count: i64 = redis.ask(cmd("INCRBY").arg(&key).arg(value), Twice::Differs).await?;
            let count = i32::try_from(count).map_err(|_| {
                Error::limit(format!(
                    "the counter {key} stands at {count} now, which the contract's 32 bits do not hold"
                ))
            })?;
            sdk::encode(&count)
        }
        "KeyValue.ListAdd" => {
            let ListValueRequest { list_name, value } = call.request()?;
            let length: u32 = redis.ask(cmd("RPUSH").arg(list_name).arg(value), Twice::Differs).await?;
            sdk::encode(&length)
        }
        "KeyValue.ListDel" => {
            let ListValueRequest { list_name, value } = call.request()?;
            let removed: u32 = redis.ask(cmd("LREM").arg(list_name).arg(1).arg(value), Twice::Differs).await?;
            sdk::encode(&(removed > 0))
        }
        "KeyValue.ListRange" => {
            let ListRangeRequest { list_name, start, stop } = call.request()?;
            let items: Vec<String> = redis.ask(cmd("LRANGE").arg(list_name).arg(start).arg(stop), Twice::Same).await?;
            sdk::encode(&items)
        }
        "KeyValue.SetAdd" => {
            let SetValueRequest { set_name, value } = call.request()?;
            let added: u32 = redis.ask(cmd("SADD").arg(set_name).arg(value), Twice::Differs).await?;
            sdk::encode(&added)
        }
        "KeyValue.SetDel" => {
            let SetValueRequest { set_name, value } = call.request()?;
            let removed: u32 = redis.ask(cmd("SREM").arg(set_name).arg(value), Twice::Differs).await?;
            sdk::encode(&removed)
        }
        "KeyValue.SetUnion" => sets(redis, "SUNION", call.request()?).await,
        "KeyValue.SetIntersection" => sets(redis, "SINTER", call.request()?).await,
        "KeyValue.SetQuery" => sets(redis, "SMEMBERS", vec![call.request()?]).await,
        _ => Err(call.not_handled()),
    }
}

/// The members that `command` finds in `keys`; of no sets, none.
async fn sets(redis: &RedisLink, command: &str, keys: Vec<String>) -> Result<Vec<u8>> {
    let members: Vec<String> =
        if keys.is_empty() { Vec::new() } else { redis.ask(cmd(command).arg(keys), Twice::Same).await? };
    sdk::encode(&members)
}
