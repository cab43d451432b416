//! The protocol played: what each act of a process does to the state, and what every order of them must keep.

use super::*;
use crate::model::explore::Model;

impl<'a> Play<'a> {
    pub(crate) fn new(scene: &'a Scene, without: Option<Rule>) -> Play<'a> {
        let script = |ops: &Vec<Op>| ops.iter().map(|&op| sequence(op, without)).collect();
        Play { scene, without, acts: scene.scripts.iter().map(script).collect() }
    }

    pub(super) fn rule(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn act(&self, s: &State, p: u8) -> Option<Act> {
        let Process { op, act, dead, .. } = s.process[p as usize];
        if dead { None } else { self.acts[p as usize].get(op as usize)?.get(act as usize).copied() }
    }

    /// Steps over what does not concern the object.
    fn settle(&self, s: &mut State, p: u8) {
        loop {
            let me = &mut s.process[p as usize];
            let Some(acts) = self.acts[p as usize].get(me.op as usize) else { return };
            match acts.get(me.act as usize) {
                None => *me = Process { op: me.op + 1, act: 0, x: 0, seen: 0, asking: Asking::default(), ..*me },
                Some(Act::SenderBit | Act::RoleCleared | Act::RoleTold | Act::Announce | Act::Arrived)
                    if self.scene.channels & bit(self.object(s, p)) == 0 =>
                {
                    s.process[p as usize].act += 1;
                }
                Some(_) => return,
            }
        }
    }

    fn object(&self, s: &State, p: u8) -> u8 {
        let me = s.process[p as usize];
        match self.scene.scripts[p as usize][me.op as usize] {
            Op::Put(_, x) | Op::Move(_, x) | Op::Give(_, x) | Op::Drop(x) | Op::Make(x) => x,
            _ => me.x,
        }
    }

    /// What living processes can get at, and the channels of which they can get at a sender.
    pub(super) fn referenced(&self, s: &State) -> (Set, Set) {
        let alive = || (0..self.scene.scripts.len()).filter(|&p| !s.process[p].dead);
        let mut all = alive().fold(0, |all, p| all | s.hold[p] | s.args[p]) & s.live;
        let mut senders = alive().fold(0, |all, p| all | s.sender[p] | s.args[p]);
        loop {
            let before = all;
            for q in (0..MAX as u8).filter(|&q| before & bit(q) != 0) {
                for at in s.head[q as usize]..s.tail[q as usize] {
                    all |= bit(s.ring[q as usize][at as usize % RING]);
                    senders |= bit(s.ring[q as usize][at as usize % RING]);
                }
            }
            if all == before {
                return (all, senders & self.scene.channels);
            }
        }
    }

    /// `Arena::nobody_has`: `received`, `sent`, each slot, `sent` again.
    pub(super) fn ask(&self, s: &State, asking: &mut Asking, x: u8) -> Option<bool> {
        let slots = self.scene.scripts.len() as u8;
        let i = x as usize;
        match asking.step {
            0 => asking.received = s.received[i],
            1 => {
                asking.sent = s.sent[i];
                if asking.sent != asking.received {
                    return Some(false);
                }
            }
            step if step < 2 + slots => {
                if s.sender[step as usize - 2] & bit(x) != 0 {
                    return Some(false);
                }
            }
            _ => return Some(s.sent[i] == asking.sent),
        }
        asking.step += 1;
        None
    }

    /// `role_gone` of the senders.
    pub(super) fn close(&self, s: &mut State, x: u8) -> Result<(), String> {
        if self.referenced(s).1 & bit(x) != 0 {
            return Err(format!("channel {x} is closed although there is a sender"));
        }
        s.ended |= bit(x);
        Ok(())
    }

    fn step(&self, s: &mut State, p: u8, act: Act) -> Result<(&'static str, After), String> {
        let i = p as usize;
        let op = self.scene.scripts[i][s.process[i].op as usize];
        let x = self.object(s, p);
        let (xi, xb) = (x as usize, bit(x));
        let mut after = After::Next;
        let what = match act {
            Act::Announce => {
                if let Op::Put(q, x) | Op::Move(q, x) = op
                    && (s.hold[i] & bit(q) == 0 || s.sender[i] & bit(x) == 0)
                {
                    return Ok(("has no handle to put", After::Over));
                }
                if matches!(op, Op::Give(..)) && s.sender[i] & xb == 0 {
                    return Ok(("has nothing to give", After::Over));
                }
                s.sent[xi] += 1;
                "put.announced"
            }
            Act::CommitTail => {
                let (Op::Put(q, _) | Op::Move(q, _)) = op else { unreachable!() };
                let (qi, wanted) = (q as usize, bit(q) | xb);
                if s.hold[i] & wanted != wanted || s.tail[qi] - s.head[qi] == RING as u8 {
                    if self.scene.channels & xb != 0 && self.rule(Rule::SentBeforeCommit) {
                        // withdraw
                        s.sent[xi] -= 1;
                    }
                    return Ok(("has no handle to put, or no room", After::Over));
                }
                s.ring[qi][s.tail[qi] as usize % RING] = x;
                s.tail[qi] += 1;
                "put.kicked: the tail is stored"
            }
            Act::Look => {
                s.process[i].seen = s.active;
                "stamp: looks whether a collection is active"
            }
            Act::Stamp => {
                let seen = s.process[i].seen;
                if seen != 0 {
                    s.stamp[xi] = if self.rule(Rule::FetchMax) { s.stamp[xi].max(seen) } else { seen };
                }
                "reference.stamped"
            }
            Act::Take => {
                let Op::Get(q) = op else { unreachable!() };
                let qi = q as usize;
                if s.hold[i] & bit(q) == 0 || s.head[qi] == s.tail[qi] {
                    return Ok(("finds nothing to get", After::Over));
                }
                s.clock[qi] = p + 1;
                s.process[i].x = s.ring[qi][s.head[qi] as usize % RING];
                "get: has the getters' lock and reads the record"
            }
            Act::Hold => {
                if !matches!(op, Op::Make(_)) && s.live & xb == 0 {
                    return Err(format!("object {x} was freed while a message with it was under way"));
                }
                s.hold[i] |= xb;
                "acquire: the hold bit is set"
            }
            Act::SenderBit => {
                s.sender[i] |= xb;
                "acquire: the sender bit is set"
            }
            Act::CommitHead => {
                let Op::Get(q) = op else { unreachable!() };
                s.head[q as usize] += 1;
                "get.kicked: the head is stored"
            }
            Act::Unlock => {
                let Op::Get(q) = op else { unreachable!() };
                s.clock[q as usize] = 0;
                "get: unlocks"
            }
            Act::Arrived => {
                s.received[xi] += 1;
                "arrived"
            }
            Act::StoreArgs => {
                let Op::Give(to, _) = op else { unreachable!() };
                if s.hold[i] & xb == 0 || s.args[to as usize] & xb != 0 || s.process[to as usize].free {
                    if self.scene.channels & xb != 0 && self.rule(Rule::SentBeforeCommit) {
                        s.sent[xi] -= 1;
                    }
                    return Ok(("has nothing to give", After::Over));
                }
                s.args[to as usize] |= xb;
                "a slot's arguments are stored"
            }
            Act::ReadArgs => {
                if s.args[i] == 0 {
                    return Ok(("has no arguments", After::Over));
                }
                s.process[i].x = s.args[i].trailing_zeros() as u8;
                "reads its arguments"
            }
            Act::FreeArgs => {
                s.args[i] &= !xb;
                "frees its arguments"
            }
            Act::RoleCleared => {
                if s.sender[i] & xb == 0 {
                    return Ok(("has nothing to drop", After::Over));
                }
                s.sender[i] &= !xb;
                "held.role_cleared"
            }
            Act::RoleTold => {
                let mut asking = s.process[i].asking;
                let told = self.ask(s, &mut asking, x);
                s.process[i].asking = asking;
                match told {
                    None => after = After::Again,
                    Some(true) => self.close(s, x)?,
                    Some(false) => {}
                }
                "held.role_told"
            }
            Act::LetGo => {
                s.hold[i] &= !xb;
                "held.let_go"
            }
            Act::Fill => {
                if s.live & xb != 0 || s.filling[xi] != 0 {
                    return Ok(("finds the place taken", After::Over));
                }
                (s.filling[xi], s.stamp[xi], s.sent[xi], s.received[xi]) = (p + 1, 0, 0, 0);
                (s.head[xi], s.tail[xi], s.ended) = (0, 0, s.ended & !xb);
                "object.entry"
            }
            Act::Live => {
                (s.filling[xi], s.live) = (0, s.live | xb);
                "fill_object: lives"
            }
            Act::Lock => {
                if s.collector != 0 {
                    return Ok(("collect: another process is at it", After::Over));
                }
                (s.collector, s.marks) = (p + 1, Marks::default());
                "collect: has the lock"
            }
            Act::Clean => {
                if !self.clean_step(s, matches!(op, Op::Collect))? {
                    after = After::Again;
                }
                "clean_slot"
            }
            Act::Activate => {
                s.epoch += 1;
                s.active = s.epoch;
                s.marks = Marks::default();
                "collect.active"
            }
            Act::Roots => {
                let m = &mut s.marks;
                // Hold bits, sender bits, arguments of one slot after the other; each bit for itself if they lie in words of their own.
                let (part, word) = if self.scene.words { (m.at % MAX as u8, MAX as u8) } else { (0, 1) };
                let mask = if self.scene.words { bit(part) } else { Set::MAX };
                let (slot, table) = ((m.at / word / 3) as usize, m.at / word % 3);
                if !s.process[slot].free {
                    let seen = mask & [s.hold[slot], s.sender[slot], s.args[slot] & s.live][table as usize];
                    m.work |= seen & !m.reached;
                    m.reached |= seen;
                    m.senders |= if table == 0 { 0 } else { seen };
                }
                m.at += 1;
                if self.scene.channels == 0 && m.at / word % 3 == 1 {
                    m.at += word;
                }
                if ((m.at / word / 3) as usize) < self.scene.scripts.len() {
                    after = After::Again;
                } else {
                    m.at = 0;
                }
                "mark: reads a slot's bits"
            }
            Act::Follow => {
                if !self.follow_step(s) {
                    after = After::Again;
                }
                "trace"
            }
            Act::Stamped => {
                if !self.stamped_step(s) {
                    after = After::Again;
                }
                "stamped"
            }
            Act::Sweep => {
                if !self.sweep_step(s)? {
                    after = After::Again;
                }
                "sweep"
            }
            Act::Done => {
                if s.active != 0 {
                    s.active = 0;
                    after = After::Again;
                } else {
                    (s.collector, s.marks) = (0, Marks::default());
                }
                "collect: is over"
            }
        };
        Ok((what, after))
    }

    fn die(&self, s: &mut State, p: u8) {
        s.process[p as usize].dead = true;
        s.deaths += 1;
        for owner in s.clock.iter_mut().filter(|owner| **owner == p + 1) {
            *owner = 0;
        }
        if s.collector == p + 1 {
            // `active` stays as it is until the next one.
            (s.collector, s.marks) = (0, Marks::default());
        }
    }
}

impl Model for Play<'_> {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let mut s = State { live: self.scene.objects, ..State::default() };
        for (p, &holds) in self.scene.holds.iter().enumerate() {
            s.hold[p] = holds;
        }
        for (p, &senders) in self.scene.senders.iter().enumerate() {
            s.sender[p] = senders;
        }
        for &(q, x) in &self.scene.records {
            let q = q as usize;
            s.ring[q][s.tail[q] as usize % RING] = x;
            s.tail[q] += 1;
            s.sent[x as usize] += u8::from(self.scene.channels & bit(x) != 0);
        }
        (0..self.scene.scripts.len()).for_each(|p| self.settle(&mut s, p as u8));
        s
    }

    fn steps(&self, s: &State, into: &mut Vec<Step>) {
        for process in 0..self.scene.scripts.len() as u8 {
            let Some(act) = self.act(s, process) else { continue };
            let waits = match (act, self.scene.scripts[process as usize][s.process[process as usize].op as usize]) {
                (Act::Take, Op::Get(q)) => s.clock[q as usize] != 0,
                _ => false,
            };
            if !waits {
                into.push(Step { process, dies: false });
            }
            if self.scene.mortal & bit(process) != 0 && s.deaths < self.scene.deaths {
                into.push(Step { process, dies: true });
            }
        }
    }

    fn actor(&self, step: Step) -> usize {
        // Death is an actor of its own, so that it does not come with each slow process.
        if step.dies { 7 } else { step.process as usize }
    }

    fn take(&self, s: &mut State, Step { process, dies }: Step) -> Result<&'static str, String> {
        if dies {
            self.die(s, process);
            return Ok("dies");
        }
        let Some(act) = self.act(s, process) else { return Ok("is over") };
        let (what, after) = self.step(s, process, act)?;
        let me = &mut s.process[process as usize];
        match after {
            After::Again => {}
            After::Next => (me.act, me.asking) = (me.act + 1, Asking::default()),
            After::Over => me.act = u8::MAX,
        }
        self.settle(s, process);
        Ok(what)
    }

    /// Two collections later nothing is left that nobody can get at, and what nobody can send to is closed.
    fn at_rest(&self, s: &State) -> Result<(), String> {
        let mut s = *s;
        for _ in 0..2 {
            s.marks = Marks::default();
            s.collector = MAX as u8 + 1;
            while !self.clean_step(&mut s, true)? {}
            s.epoch += 1;
            (s.active, s.marks) = (s.epoch, Marks::default());
            for p in (0..self.scene.scripts.len()).filter(|&p| !s.process[p].free) {
                s.marks.reached |= (s.hold[p] | s.args[p]) & s.live;
                s.marks.senders |= s.sender[p] | s.args[p];
            }
            s.marks.work = s.marks.reached;
            while !self.follow_step(&mut s) {}
            while !self.stamped_step(&mut s) {}
            while !self.sweep_step(&mut s)? {}
            (s.active, s.collector) = (0, 0);
        }
        let (referenced, senders) = self.referenced(&s);
        if s.live != referenced {
            return Err(format!("objects {:#b} stay though only {referenced:#b} are referenced", s.live));
        }
        let open = s.live & self.scene.channels & !s.ended;
        if open != senders & s.live {
            return Err(format!("channels {open:#b} are open though only {senders:#b} have a sender"));
        }
        Ok(())
    }
}
