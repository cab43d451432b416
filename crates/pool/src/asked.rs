//! What a task in another process than the pool's is given beyond the pool's settings, on its way to the pool.
//!
//! What can travel does; whether a failure is meant, by a closure of that process, is asked there: the pool ends each attempt, and the client submits the next
//! ([`crate::client`]).

use crate::error::TaskError;
use crate::home::Settings;
use crate::retry::Retry;
use crate::table::Terms;
use crate::told::Told;
use multiproc_channel::{Bincode, Buffer, Codec, CodecError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What holds for tasks of which nothing else is said, as other processes know it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Usual {
    pub(crate) timeout: Option<Duration>,
    /// How often a task is tried again, and the first pause.
    pub(crate) retry: Option<(u32, Duration)>,
    pub(crate) is_bounded: bool,
}

impl From<&Settings> for Usual {
    fn from(settings: &Settings) -> Usual {
        Usual {
            timeout: settings.task_timeout,
            retry: settings.retry.as_ref().map(|retry| (retry.times, retry.backoff)),
            is_bounded: settings.queue_bound.is_some(),
        }
    }
}

impl Usual {
    /// As in the pool's own process, but for `only_if`, which stays there.
    pub(crate) fn terms(&self) -> Terms {
        let retry = self.retry.map(|(times, backoff)| Arc::new(Retry { times, backoff, only_if: None }));
        Terms { timeout: self.timeout, retry, ..Terms::default() }
    }
}

/// See the module.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Its own settings, in place of the pool's.
    pub(crate) own: Option<Own>,
    pub(crate) first: First,
    /// The client waits to hear that the task has been taken, and until then there may be no room.
    pub(crate) waits: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Own {
    name: Option<String>,
    timeout: Option<Duration>,
    retry: Tried,
}

#[derive(Debug, Serialize, Deserialize)]
enum Tried {
    Never,
    /// So many times, with that pause, where the pool's own `only_if` is true.
    ByThePool(u32, Duration),
    /// Each attempt is the client's affair.
    ByTheClient,
}

/// What becomes of the task first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) enum First {
    /// It is given to a worker.
    #[default]
    Run,
    /// That, in a while: it has failed before.
    Wait(Duration),
    /// It has failed like this, and may be tried again.
    Fail(Told),
}

/// Whether the process that submits a task decides itself whether it is tried again.
pub(crate) fn decides(terms: &Terms) -> bool {
    terms.retry.as_ref().is_some_and(|retry| retry.only_if.is_some())
}

impl Own {
    pub(crate) fn of(terms: &Terms) -> Own {
        let retry = match &terms.retry {
            Some(_) if decides(terms) => Tried::ByTheClient,
            Some(retry) => Tried::ByThePool(retry.times, retry.backoff),
            None => Tried::Never,
        };
        Own { name: terms.name.clone(), timeout: terms.timeout, retry }
    }

    pub(crate) fn terms(self, settings: &Settings) -> Terms {
        let Own { name, timeout, retry } = self;
        let retry = match retry {
            Tried::ByThePool(times, backoff) => {
                let only_if = settings.retry.as_ref().and_then(|usual| usual.only_if.clone());
                Some(Arc::new(Retry { times, backoff, only_if }))
            }
            Tried::Never | Tried::ByTheClient => None,
        };
        Terms { name, timeout, retry, ..Terms::default() }
    }
}

impl Asked {
    pub(crate) fn failed(why: Option<TaskError>) -> First {
        why.map_or(First::Run, |why| First::Fail(Told::from(why)))
    }

    /// Nothing, when nothing is asked for.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        if self.own.is_none() && matches!(self.first, First::Run) && !self.waits {
            return Ok(Vec::new());
        }
        let mut bytes = Buffer::new();
        <Bincode as Codec<Asked>>::encode(self, &mut bytes)?;
        Ok(bytes.into_vec())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Asked, CodecError> {
        if bytes.is_empty() { Ok(Asked::default()) } else { <Bincode as Codec<Asked>>::decode(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_arrives() {
        assert!(Asked::default().encode().unwrap().is_empty());
        let retry = Some(Arc::new(Retry { times: 3, backoff: Duration::from_millis(5), only_if: None }));
        let terms = Terms { name: Some("n".into()), timeout: Some(Duration::from_secs(1)), retry, ..Terms::default() };
        let first = Asked::failed(Some(TaskError::Cancelled));
        let bytes = Asked { own: Some(Own::of(&terms)), first, waits: true }.encode().unwrap();
        let asked = Asked::decode(&bytes).unwrap();
        assert!(asked.waits && matches!(asked.first, First::Fail(Told::Cancelled)));
        let Own { name, timeout, retry } = asked.own.unwrap();
        assert_eq!((name.as_deref(), timeout), (Some("n"), terms.timeout));
        assert!(matches!(retry, Tried::ByThePool(3, pause) if pause == Duration::from_millis(5)));
        let meant = Retry { times: 1, backoff: Duration::ZERO, only_if: Some(Arc::new(TaskError::is_timeout)) };
        let own = Own::of(&Terms { retry: Some(Arc::new(meant)), ..Terms::default() });
        assert!(matches!(own.retry, Tried::ByTheClient));
    }
}
