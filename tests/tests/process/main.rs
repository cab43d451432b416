//! Processes as a user sees them: what goes in, what comes out, how they end, how they are waited for.

mod builder;
mod ends;
mod helpers;
mod many;
mod values;
mod waiting;
