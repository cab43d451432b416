//! Rows that no mutant breaks, and why.

/// A first cell, or the first two, and the reason.
type Spared = (&'static str, &'static str);

/// By the end of the file's name.
pub const ALL: &[(&str, &[Spared])] = &[
    (
        "pipe/cell.rs",
        &[("`carries`, `max_message`, `ring_bytes`", "constants"), ("`backed`", "read too low it asks for pages that are there")],
    ),
    (
        "pipe/local.rs",
        &[
            ("claiming, before the CAS", "nothing has been written"),
            ("before the mark of its predecessor's death", "two deaths without a message between them may count as one"),
        ],
    ),
    (
        "ring/cell.rs",
        &[
            ("`head_seen`, `got_seen`, `tail_seen`", "read too old it has the other side's line looked at"),
            ("`join_cursor`", "a hint"),
            ("`capacity`, `max_message`, `max_bytes`, `max_attempts`, `segment_bits`, `fails_when_full`", "constants"),
        ],
    ),
    ("ring/join.rs", &[("a joiner, asleep", "a word that says so in vain costs one look")]),
    ("list.rs", &[("before the format is taken away", "nothing has been written")]),
    ("tag.rs", &[("in `persist`", "either end is right")]),
    (
        "desk.rs",
        &[
            ("`leave`", "the pool's word, which ends with all its workers"),
            ("`depth`", "a hint"),
            ("`tasks`, `busy`", "figures for people"),
            ("`since` of a level", "written before the id, by the same thread"),
            ("`stop` of a level", "the pool's word, which ends with all its workers"),
            ("`progress` of a level", "a figure for people"),
        ],
    ),
    ("arena.rs", &[("`settled`", "a collection early or late"), ("`given_back`", "idle memory is given back later")]),
    (
        "blocks.rs",
        &[
            ("`Free`", "nobody's"),
            (
                "n | yes",
                "who cleans up after a death gives all idle memory back in any case, and where memory is not short a page that lacks is there when it is touched",
            ),
        ],
    ),
    ("losses.rs", &[("`counter`, `target`, `sum_target`, `pending`", "nobody reads them before `note` is stored")]),
    ("memory.rs", &[("`limit`", "a constant")]),
    ("notes.rs", &[("`since`", "for reports"), ("`unnoted`", "for reports")]),
    ("objects.rs", &[("`block`, `kind`, `type_hash`", "constants while others see them")]),
    ("wait_word.rs", &[("0 | nobody has watched yet", "nobody's")]),
    (
        "roster.rs",
        &[
            ("state `Free`", "nobody's"),
            ("`last_words`", "a text for people, in a block like any other of the slot"),
            ("flag `DETACHED`", "either end is right"),
            ("`keeper`", "a thread that is rung in vain"),
            ("`started`", "for reports"),
            (
                "`pid`, name, `parent` with its generation",
                "written before the slot is live; until then the word of its state says whose it is",
            ),
        ],
    ),
    ("slab.rs", &[("`free`", "a hint")]),
    (
        "watching.rs",
        &[
            ("a watcher, at any step", "a word that says so in vain costs one system call"),
            ("who changes an object, before the change", "nothing has been written"),
        ],
    ),
    ("array.rs", &[("`len`", "a constant"), ("elements", "half of the stores are what the next owner is told to expect")]),
    ("barrier/raw.rs", &[("`parties`", "a constant")]),
    ("raw/signals.rs", &[("`bound`", "a constant")]),
    (
        "sync/src/semaphore.rs",
        &[("`owned_high`", "one place too many is looked at"), ("`permits`", "a constant"), ("`recovered`", "a figure")],
    ),
    (
        "shared_vec.rs",
        &[("`len`", "a constant"), ("`frozen` 0", "nobody else has a handle"), ("elements", "nobody else has a handle")],
    ),
];
