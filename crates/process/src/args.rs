//! What can be run in another process: functions with 0 to 12 arguments, and structs with [`Run`].
#![allow(unsafe_code)]

use multiproc_channel::Message;

mod sealed {
    pub trait Sealed {}
}

/// Tuples of arguments: `()`, `(a,)`, `(a, b)`, .. up to 12. Sealed.
///
/// The function comes as a plain `fn` pointer: items, methods and closures that capture nothing coerce to it. So what travels is
/// data and two addresses, and the compiler rejects a capturing closure at `cargo check`, naming the variable.
#[diagnostic::on_unimplemented(
    message = "the arguments must be a tuple, not `{Self}`",
    label = "expected `()`, `(a,)`, `(a, b)`, .. up to 12",
    note = "one argument is written `(a,)`; every element must own its data and derive `Serialize` and `Deserialize`"
)]
pub trait Args: Message + sealed::Sealed {
    /// The functions that take these arguments and return `R`.
    type Fn<R: 'static>: Copy + Send + Sync + 'static;

    /// Calls `f` with the elements of the tuple.
    #[doc(hidden)]
    fn call<R: 'static>(f: Self::Fn<R>, args: Self) -> R;

    /// The function's address.
    #[doc(hidden)]
    fn address<R: 'static>(f: Self::Fn<R>) -> *const ();

    /// The function at an address.
    ///
    /// # Safety
    /// `address` came from [`address`](Args::address) with the same types, in this image.
    #[doc(hidden)]
    unsafe fn at<R: 'static>(address: *const ()) -> Self::Fn<R>;
}

macro_rules! args {
    ($($A:ident $a:ident),*) => {
        impl<$($A: Message),*> sealed::Sealed for ($($A,)*) {}
        impl<$($A: Message),*> Args for ($($A,)*) {
            type Fn<Ret: 'static> = fn($($A),*) -> Ret;

            #[inline]
            fn call<Ret: 'static>(f: fn($($A),*) -> Ret, ($($a,)*): Self) -> Ret {
                f($($a),*)
            }

            fn address<Ret: 'static>(f: fn($($A),*) -> Ret) -> *const () {
                f as *const ()
            }

            unsafe fn at<Ret: 'static>(address: *const ()) -> fn($($A),*) -> Ret {
                // SAFETY: the caller vouches that this is the address of such a function.
                unsafe { std::mem::transmute::<*const (), fn($($A),*) -> Ret>(address) }
            }
        }
    };
}

args!();
args!(A a);
args!(A a, B b);
args!(A a, B b, C c);
args!(A a, B b, C c, D d);
args!(A a, B b, C c, D d, E e);
args!(A a, B b, C c, D d, E e, F f);
args!(A a, B b, C c, D d, E e, F f, G g);
args!(A a, B b, C c, D d, E e, F f, G g, H h);
args!(A a, B b, C c, D d, E e, F f, G g, H h, I i);
args!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j);
args!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k);
args!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k, L l);

/// A worker as a struct with state. The struct travels to the new process and runs there.
///
/// # Python
/// A subclass of `Process` with `run` overridden.
///
/// # Examples
/// ```
/// use multiproc::{Process, Run};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Resize { width: u32 }
///
/// impl Run for Resize {
///     type Output = u32;
///     fn run(self) -> u32 { self.width / 2 }
/// }
///
/// assert_eq!(Process::start(Resize { width: 80 })?.join()?, 40);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Process.run")]
pub trait Run: Message {
    /// What the process returns.
    type Output: Message;

    /// Runs in the new process.
    fn run(self) -> Self::Output;
}
