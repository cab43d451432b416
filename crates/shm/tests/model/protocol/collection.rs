//! The collector's steps: cleaning after the dead, following what refers, looking at stamps, sweeping. Each looks at one thing.

use super::*;

impl Play<'_> {
    /// Takes back one thing that a dead process has; true when there is nothing left.
    pub(super) fn clean_step(&self, s: &mut State, under_lock: bool) -> Result<bool, String> {
        if let Some((x, _)) = s.marks.ending.filter(|_| under_lock) {
            let mut asking = s.marks.asking;
            let told = self.ask(s, &mut asking, x);
            s.marks.asking = asking;
            if let Some(nobody) = told {
                (s.marks.ending, s.marks.asking) = (None, Asking::default());
                if nobody {
                    self.close(s, x)?;
                }
            }
            return Ok(false);
        }
        let Some(slot) = (0..self.scene.scripts.len()).find(|&p| s.process[p].dead && !s.process[p].free) else {
            return Ok(true);
        };
        if s.args[slot] != 0 {
            s.args[slot] &= s.args[slot] - 1;
        } else if let Some(x) = s.filling.iter().position(|&by| by == slot as u8 + 1) {
            s.filling[x] = 0;
        } else if s.sender[slot] != 0 {
            let x = s.sender[slot].trailing_zeros() as u8;
            s.sender[slot] &= !bit(x);
            if s.live & bit(x) != 0 && self.scene.channels & bit(x) != 0 && under_lock {
                s.marks.ending = Some((x, true));
            }
        } else if s.hold[slot] != 0 {
            s.hold[slot] &= s.hold[slot] - 1;
        } else {
            s.process[slot].free = true;
        }
        Ok(false)
    }

    /// Reads one record of what has been reached; true when there is none left.
    pub(super) fn follow_step(&self, s: &mut State) -> bool {
        let m = &mut s.marks;
        while !m.in_ring {
            if m.work == 0 {
                return true;
            }
            m.q = m.work.trailing_zeros() as u8;
            m.work &= m.work - 1;
            (m.from, m.to) = (s.head[m.q as usize], s.tail[m.q as usize]);
            m.in_ring = m.from < m.to;
        }
        // The getters may have passed it meanwhile.
        let q = m.q as usize;
        m.from = m.from.max(s.head[q]);
        if m.from < m.to && s.live & bit(m.q) != 0 {
            let x = s.ring[q][m.from as usize % RING];
            if s.live & bit(x) != 0 {
                m.work |= bit(x) & !m.reached;
                m.reached |= bit(x);
                m.senders |= bit(x);
            }
            m.from += 1;
        }
        m.in_ring = m.from < m.to && s.live & bit(m.q) != 0;
        !m.in_ring && m.work == 0
    }

    /// Looks at one stamp; after a pass what it has found is followed, and then comes another pass. True when one has found nothing.
    pub(super) fn stamped_step(&self, s: &mut State) -> bool {
        if s.marks.work != 0 || s.marks.in_ring {
            self.follow_step(s);
            return false;
        }
        let m = &mut s.marks;
        while (m.at as usize) < MAX && s.live & !m.reached & bit(m.at) == 0 {
            m.at += 1;
        }
        if (m.at as usize) < MAX {
            if self.rule(Rule::StampedAreRoots) && s.stamp[m.at as usize] == s.epoch {
                m.reached |= bit(m.at);
                m.later |= bit(m.at);
                m.found = true;
            }
            m.at += 1;
            return false;
        }
        if m.later != 0 {
            (m.work, m.later) = (m.later, 0);
            return false;
        }
        let again = m.found && self.rule(Rule::StampsUntilNothing);
        (m.at, m.found) = (0, false);
        !again
    }

    /// Looks at one object, then ends or closes it; true when all are done.
    pub(super) fn sweep_step(&self, s: &mut State) -> Result<bool, String> {
        if let Some((x, certain)) = s.marks.ending {
            if s.marks.reached & bit(x) == 0 {
                s.marks.ending = None;
                if self.referenced(s).0 & bit(x) != 0 {
                    return Err(format!("object {x} is freed although it is referenced"));
                }
                s.live &= !bit(x);
                return Ok(false);
            }
            let mut asking = s.marks.asking;
            let told = if certain { Some(true) } else { self.ask(s, &mut asking, x) };
            s.marks.asking = asking;
            if let Some(nobody) = told {
                (s.marks.ending, s.marks.asking) = (None, Asking::default());
                if nobody {
                    self.close(s, x)?;
                }
            }
            return Ok(false);
        }
        while (s.marks.at as usize) < MAX && s.live & bit(s.marks.at) == 0 {
            s.marks.at += 1;
        }
        let x = s.marks.at;
        if x as usize == MAX {
            return Ok(true);
        }
        s.marks.at += 1;
        {
            let stamped = s.stamp[x as usize] == s.epoch;
            let (reached, sender) = (s.marks.reached & bit(x) != 0, s.marks.senders & bit(x) != 0);
            if !reached && !stamped || reached && self.scene.channels & bit(x) != 0 && !sender {
                s.marks.ending = Some((x, !stamped));
            }
        }
        Ok(false)
    }
}
