//! The `tracing` span of whoever submits a task: the events of the task belong to it. A feature, with the bridge.

/// The span, kept until the task has its outcome.
#[derive(Debug)]
pub(crate) struct Caller {
    #[cfg(feature = "tracing-bridge")]
    span: tracing::Span,
}

#[cfg(feature = "tracing-bridge")]
impl Caller {
    /// That of this thread.
    pub(crate) fn here() -> Caller {
        Caller { span: tracing::Span::current() }
    }

    pub(crate) fn nobody() -> Caller {
        Caller { span: tracing::Span::none() }
    }

    /// Its number in the coordinator; 0 for none.
    pub(crate) fn number(&self) -> u64 {
        multiproc_process::current_span(&self.span)
    }
}

/// In a worker: the number of the span that its task belongs to, for tasks that it submits.
#[cfg(feature = "tracing-bridge")]
pub(crate) fn inherited() -> u64 {
    multiproc_process::parent_span()
}

/// Runs a task on behalf of that span.
#[cfg(feature = "tracing-bridge")]
pub(crate) fn on_behalf<R>(span: u64, run: impl FnOnce() -> R) -> R {
    struct Back(u64);
    impl Drop for Back {
        fn drop(&mut self) {
            multiproc_process::set_parent_span(self.0);
        }
    }
    let _back = Back(multiproc_process::set_parent_span(span));
    run()
}

#[cfg(not(feature = "tracing-bridge"))]
impl Caller {
    pub(crate) fn here() -> Caller {
        Caller {}
    }

    pub(crate) fn nobody() -> Caller {
        Caller {}
    }

    pub(crate) fn number(&self) -> u64 {
        0
    }
}

#[cfg(not(feature = "tracing-bridge"))]
pub(crate) fn inherited() -> u64 {
    0
}

#[cfg(not(feature = "tracing-bridge"))]
pub(crate) fn on_behalf<R>(_: u64, run: impl FnOnce() -> R) -> R {
    run()
}
