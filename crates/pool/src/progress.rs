//! Progress bars for `map` and its like, on a terminal: a feature, drawn by indicatif.

/// A bar, or none: where none is wanted, where stderr is no terminal, and without the feature.
#[derive(Debug)]
pub(crate) struct Bar {
    #[cfg(feature = "progress")]
    bar: Option<indicatif::ProgressBar>,
}

#[cfg(feature = "progress")]
impl Bar {
    /// For `total` elements, if that is known.
    pub(crate) fn new(wanted: bool, total: Option<usize>) -> Bar {
        use indicatif::{ProgressBar, ProgressStyle};
        use std::io::IsTerminal;
        use std::time::Duration;
        let bar = (wanted && std::io::stderr().is_terminal()).then(|| {
            let (bar, template) = match total {
                Some(total) => (ProgressBar::new(total as u64), "{wide_bar} {human_pos}/{human_len} {per_sec} eta {eta}"),
                None => (ProgressBar::new_spinner(), "{spinner} {human_pos} {per_sec}"),
            };
            // The template is a constant.
            let bar = bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Bar { bar }
    }

    pub(crate) fn advance(&self, by: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(by as u64);
        }
    }
}

#[cfg(feature = "progress")]
impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(not(feature = "progress"))]
impl Bar {
    pub(crate) fn new(_: bool, _: Option<usize>) -> Bar {
        Bar {}
    }

    pub(crate) fn advance(&self, _: usize) {}
}
