//! The handles of a pipe: [`Connection`], which sends and receives, and the one-way [`PipeSender`] and [`PipeReceiver`].

use super::builder::{carries, type_hash};
use super::error::{RecvError, SendError, SendFailed};
use super::kind::PIPE;
use super::local::Local;
use super::record::Form;
use crate::codec::{Bincode, Codec, EncodeRef, Raw};
use crate::message::{Arrival, Parcel};
use crate::ring::Patience;
use multiproc_shm::watching::{Source, WaitOn};
use multiproc_shm::{Error, scope};
use multiproc_sys::clock::Deadline;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn until(timeout: Duration) -> Patience {
    Patience::Until(Deadline::after(timeout))
}

fn until_instant(deadline: Instant) -> Patience {
    Patience::Until(Deadline::at(deadline))
}

/// Values cross as bytes, so a handle is `Send` and `Sync` whatever they are.
type Carries<T, C> = PhantomData<fn(T, C) -> (T, C)>;

const FOR_EVER: Patience = Patience::Until(None);

impl Local {
    #[inline]
    fn send_value<B: ?Sized, T, C: EncodeRef<B, T>>(&self, value: &B, form: Form, patience: Patience) -> Result<(), SendFailed> {
        let mut parcel = Parcel::new(self.arena(), self.max_message());
        parcel.pack::<B, T, C>(self.arena(), value)?;
        self.send(&mut parcel, form, patience)?;
        parcel.gone();
        Ok(())
    }

    #[inline]
    fn recv_value<T, C: Codec<T>>(&self, form: Form, patience: Patience) -> Result<T, RecvError> {
        let mut arrival = Arrival::new(self.arena());
        self.recv(&mut arrival, form, patience)?;
        Ok(arrival.open::<T, C>()?)
    }

    /// An end that has arrived in a message, if it sends this and the other end sends that.
    fn arrived<'de, D: Deserializer<'de>>(sends: u64, receives: u64, deserializer: D) -> Result<Arc<Local>, D::Error> {
        let held = scope::deserialize(&PIPE, type_hash([sends, receives]), deserializer)?;
        let local = Local::of(held).map_err(de::Error::custom)?;
        if local.sends(sends) { Ok(local) } else { Err(de::Error::custom("the handle is for the other end of the pipe")) }
    }
}

macro_rules! handle {
    ($Name:ident<$($P:ident),+>, $sends:expr, $receives:expr) => {
        impl<$($P,)+ C> $Name<$($P,)+ C> {
            pub(super) fn new(end: Arc<Local>) -> Self {
                $Name { end, _type: PhantomData }
            }

            /// Ends the conversation from this end, for every process: the other end receives what has been sent, then [`RecvError::Eof`]; what it
            /// sends fails. Here sending fails at once, and receiving when all that has arrived is taken. Cannot be undone.
            ///
            /// Dropping all handles of the end, in all processes, does the same.
            ///
            /// # Errors
            /// Only in a process that was made by a plain `fork()`.
            pub fn close(&self) -> Result<(), Error> {
                self.end.close()
            }

            /// The process that uses the other end, if one does at present and is alive.
            pub fn peer_pid(&self) -> Option<u32> {
                self.end.peer_pid()
            }

            /// The number under which reports name the pipe.
            #[doc(hidden)]
            pub fn id(&self) -> u32 {
                self.end.index()
            }
        }

        impl<$($P,)+ C> Clone for $Name<$($P,)+ C> {
            fn clone(&self) -> Self {
                $Name::new(self.end.clone())
            }
        }

        impl<$($P,)+ C> fmt::Debug for $Name<$($P,)+ C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Name)).field("id", &self.id()).field("peer_pid", &self.peer_pid()).finish_non_exhaustive()
            }
        }

        impl<$($P,)+ C> Serialize for $Name<$($P,)+ C> {
            fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
                let done = scope::serialize(&self.end.held, serializer)?;
                Local::hand_on(&self.end);
                Ok(done)
            }
        }

        impl<'de, $($P: 'static,)+ C: 'static> Deserialize<'de> for $Name<$($P,)+ C> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Local::arrived($sends, $receives, deserializer).map($Name::new)
            }
        }
    };
}

macro_rules! sending {
    ($Name:ident<$T:ident $(, $R:ident)?>) => {
        impl<$T, $($R,)? C: Codec<$T>> $Name<$T, $($R,)? C> {
            /// Sends `value`, waiting while there is no room. It is encoded at the call, and on its way when `send` returns.
            ///
            /// While nobody uses the other end yet, messages wait for who will.
            ///
            /// # Errors
            /// [`SendError::is_broken_pipe`] when nobody will receive it: the other end is closed or gone, or its user has died. Another process uses this
            /// end; the encoded value is too large or cannot be encoded; memory is used up. The error hands the value back.
            ///
            /// # Crash safety
            /// Killed in the middle, the caller has sent the whole message or nothing. If the process at the other end dies meanwhile, `send` returns.
            pub fn send(&self, value: $T) -> Result<(), SendError<$T>> {
                self.send_with(value, FOR_EVER)
            }

            /// As [`send`](Self::send) without waiting for room.
            ///
            /// # Errors
            /// [`SendError::is_would_block`], also when another thread of this process is sending.
            pub fn try_send(&self, value: $T) -> Result<(), SendError<$T>> {
                self.send_with(value, Patience::None)
            }

            /// As [`send`](Self::send), waiting at most `timeout`.
            ///
            /// # Errors
            /// [`SendError::is_timeout`], never early.
            pub fn send_timeout(&self, value: $T, timeout: Duration) -> Result<(), SendError<$T>> {
                self.send_with(value, until(timeout))
            }

            /// As [`send`](Self::send), waiting at most until `deadline`.
            ///
            /// # Errors
            /// [`SendError::is_timeout`], never early.
            pub fn send_deadline(&self, value: $T, deadline: Instant) -> Result<(), SendError<$T>> {
                self.send_with(value, until_instant(deadline))
            }

            /// As [`send`](Self::send), for a value that the caller keeps; also for a borrowed form of it: `&str` for `String`, `&[E]` for `Vec<E>`.
            ///
            /// # Errors
            /// As [`send`](Self::send).
            pub fn send_ref<B: ?Sized>(&self, value: &B) -> Result<(), SendError<()>>
            where
                C: EncodeRef<B, $T>,
            {
                self.end.send_value::<B, $T, C>(value, Form::Value, FOR_EVER).map_err(|why| SendError::new((), why))
            }

            #[inline]
            fn send_with(&self, value: $T, patience: Patience) -> Result<(), SendError<$T>> {
                match self.end.send_value::<$T, $T, C>(&value, Form::Value, patience) {
                    Ok(()) => Ok(()),
                    Err(why) => Err(SendError::new(value, why)),
                }
            }
        }

        impl<$T, $($R,)? C> $Name<$T, $($R,)? C> {
            /// Sends bytes as they are, for [`recv_bytes`](PipeReceiver::recv_bytes) at the other end, in order with the values.
            ///
            /// # Errors
            /// As [`send`](Self::send).
            ///
            /// # Examples
            /// ```
            /// let (tx, rx) = multiproc::one_way::<u32>()?;
            /// tx.send_bytes(b"raw")?;
            /// tx.send(1)?;
            /// assert_eq!(rx.recv_bytes()?, b"raw");
            /// assert_eq!(rx.recv()?, 1);
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), SendError<()>> {
                self.send_bytes_with(bytes, FOR_EVER)
            }

            /// As [`send_bytes`](Self::send_bytes) without waiting for room.
            ///
            /// # Errors
            /// As [`try_send`](Self::try_send).
            pub fn try_send_bytes(&self, bytes: &[u8]) -> Result<(), SendError<()>> {
                self.send_bytes_with(bytes, Patience::None)
            }

            /// As [`send_bytes`](Self::send_bytes), waiting at most `timeout`.
            ///
            /// # Errors
            /// As [`send_timeout`](Self::send_timeout).
            pub fn send_bytes_timeout(&self, bytes: &[u8], timeout: Duration) -> Result<(), SendError<()>> {
                self.send_bytes_with(bytes, until(timeout))
            }

            fn send_bytes_with(&self, bytes: &[u8], patience: Patience) -> Result<(), SendError<()>> {
                self.end.send_value::<[u8], Vec<u8>, Raw>(bytes, Form::Bytes, patience).map_err(|why| SendError::new((), why))
            }
        }
    };
}

macro_rules! receiving {
    ($Name:ident, [$($S:ident)?], $T:ident) => {
        impl<$($S,)? $T, C> WaitOn for $Name<$($S,)? $T, C> {
            fn source(&self) -> Source<'_> {
                Source::Object(&*self.end)
            }
        }

        impl<$($S,)? $T, C: Codec<$T>> $Name<$($S,)? $T, C> {
            /// Receives the next message, waiting while there is none.
            ///
            /// # Errors
            /// When all that was sent has been received: [`RecvError::Eof`] if the other end is closed or nobody has a handle of it any more;
            /// [`RecvError::PeerDied`] if the process that used it has died. [`RecvError::InUse`] if another process uses this end.
            /// [`RecvError::Decode`] for a message that is no value of the type, or is bytes; it is gone, the pipe goes on.
            ///
            /// # Crash safety
            /// Killed in the middle, the caller leaves the message in the pipe or loses that one. If the process at the other end dies meanwhile,
            /// `recv` returns. If another process goes on with the other end, the death is told once, between its messages and the dead one's.
            pub fn recv(&self) -> Result<$T, RecvError> {
                self.end.recv_value::<$T, C>(Form::Value, FOR_EVER)
            }

            /// As [`recv`](Self::recv) without waiting.
            ///
            /// # Errors
            /// [`RecvError::WouldBlock`], also when another thread of this process is receiving.
            pub fn try_recv(&self) -> Result<$T, RecvError> {
                self.end.recv_value::<$T, C>(Form::Value, Patience::None)
            }

            /// As [`recv`](Self::recv), waiting at most `timeout`.
            ///
            /// # Errors
            /// [`RecvError::TimedOut`], never early.
            pub fn recv_timeout(&self, timeout: Duration) -> Result<$T, RecvError> {
                self.end.recv_value::<$T, C>(Form::Value, until(timeout))
            }

            /// As [`recv`](Self::recv), waiting at most until `deadline`.
            ///
            /// # Errors
            /// [`RecvError::TimedOut`], never early.
            pub fn recv_deadline(&self, deadline: Instant) -> Result<$T, RecvError> {
                self.end.recv_value::<$T, C>(Form::Value, until_instant(deadline))
            }

            /// Messages until the other end's end. Each is a `Result`: one that does not decode is an `Err`, and the next call goes on; after a death at the
            /// other end has been told, there are no more.
            pub fn iter(&self) -> ConnectionIter<'_, $T, C> {
                ConnectionIter { end: &self.end, ended: false, _type: PhantomData }
            }
        }

        impl<$($S,)? $T, C> $Name<$($S,)? $T, C> {
            /// Receives what [`send_bytes`](PipeSender::send_bytes) has sent, waiting while there is nothing.
            ///
            /// # Errors
            /// As [`recv`](Self::recv); [`RecvError::Decode`] for a message that is a value.
            pub fn recv_bytes(&self) -> Result<Vec<u8>, RecvError> {
                self.end.recv_value::<Vec<u8>, Raw>(Form::Bytes, FOR_EVER)
            }

            /// As [`recv_bytes`](Self::recv_bytes) without waiting.
            ///
            /// # Errors
            /// As [`try_recv`](Self::try_recv).
            pub fn try_recv_bytes(&self) -> Result<Vec<u8>, RecvError> {
                self.end.recv_value::<Vec<u8>, Raw>(Form::Bytes, Patience::None)
            }

            /// As [`recv_bytes`](Self::recv_bytes), waiting at most `timeout`.
            ///
            /// # Errors
            /// As [`recv_timeout`](Self::recv_timeout).
            pub fn recv_bytes_timeout(&self, timeout: Duration) -> Result<Vec<u8>, RecvError> {
                self.end.recv_value::<Vec<u8>, Raw>(Form::Bytes, until(timeout))
            }

            /// Waits at most `timeout` until receiving would return at once: a message is there, or the news that none will come. Takes nothing.
            ///
            /// # Errors
            /// Another process uses this end, or it has been closed.
            pub fn poll(&self, timeout: Duration) -> Result<bool, RecvError> {
                let patience = if timeout.is_zero() { Patience::None } else { until(timeout) };
                self.end.poll(patience)
            }
        }

        impl<'a, $($S,)? $T, C: Codec<$T>> IntoIterator for &'a $Name<$($S,)? $T, C> {
            type Item = Result<$T, RecvError>;
            type IntoIter = ConnectionIter<'a, $T, C>;

            fn into_iter(self) -> ConnectionIter<'a, $T, C> {
                self.iter()
            }
        }
    };
}

/// One end of a pipe: sends `S`, receives `R`. Made by [`pipe`](crate::pipe).
///
/// A handle is one word, cheap to clone, and travels in arguments, results and messages. Values cross as bytes, so it is `Send` and `Sync` whatever they are.
///
/// # Who uses an end
/// One process at a time, with as many threads as it likes; those who send and those who receive do not hold each other up. A process becomes the user of an
/// end by its first operation there, and ceases to be when it drops its last handle of it, or puts that into a message or into arguments. Until then every
/// other process is told [`RecvError::InUse`]. Keeping, cloning or passing on handles is no use.
///
/// # How the other end is seen
///
/// | the other end | to `recv`, when all has been received | to `send` |
/// |---|---|---|
/// | is used by a process, or still held or on its way somewhere | waits | sends, or waits for room |
/// | is closed, or nobody has a handle of it any more | [`RecvError::Eof`] | [`SendError::is_broken_pipe`] |
/// | was used by a process that has died, or has exited with handles while others have some | [`RecvError::PeerDied`] | the same, and [`SendError::peer_died`] |
/// | is used by a process again, after one has died | [`RecvError::PeerDied`] once (more), then as above | as above |
///
/// # Python
/// `multiprocessing.connection.Connection`, as `Pipe()` makes two of them. There the end of the data is not seen while any process, such as the one that made the
/// pipe, still has the other end open; here what counts is who uses it.
///
/// # Crash safety
/// `kill -9` of anybody at any instruction: nobody hangs and no message is torn. See [`send`](Connection::send) and [`recv`](Connection::recv).
pub struct Connection<S, R, C = Bincode> {
    end: Arc<Local>,
    _type: Carries<(S, R), C>,
}

/// The sending end of a pipe in one direction. Made by [`one_way`](crate::one_way).
///
/// In everything but its direction it is as a [`Connection`].
#[doc(alias = "Connection")]
pub struct PipeSender<T, C = Bincode> {
    end: Arc<Local>,
    _type: Carries<T, C>,
}

/// The receiving end of a pipe in one direction. Made by [`one_way`](crate::one_way).
///
/// In everything but its direction it is as a [`Connection`].
#[doc(alias = "Connection")]
pub struct PipeReceiver<T, C = Bincode> {
    end: Arc<Local>,
    _type: Carries<T, C>,
}

handle!(Connection<S, R>, carries::<S, C>(), carries::<R, C>());
handle!(PipeSender<T>, carries::<T, C>(), 0);
handle!(PipeReceiver<T>, 0, carries::<T, C>());
sending!(Connection<S, R>);
sending!(PipeSender<T>);
receiving!(Connection, [S], R);
receiving!(PipeReceiver, [], T);

/// Messages of a pipe until its end: see [`Connection::iter`].
#[derive(Debug)]
pub struct ConnectionIter<'a, T, C = Bincode> {
    end: &'a Local,
    ended: bool,
    _type: PhantomData<fn() -> (T, C)>,
}

impl<T, C: Codec<T>> Iterator for ConnectionIter<'_, T, C> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Result<T, RecvError>> {
        if self.ended {
            return None;
        }
        let next = self.end.recv_value::<T, C>(Form::Value, FOR_EVER);
        self.ended = !matches!(next, Ok(_) | Err(RecvError::Decode(_)));
        match next {
            Err(RecvError::Eof | RecvError::Closed) => None,
            other => Some(other),
        }
    }
}

impl<T, C: Codec<T>> std::iter::FusedIterator for ConnectionIter<'_, T, C> {}
