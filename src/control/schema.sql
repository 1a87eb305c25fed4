-- Version 1 of the control database. Portable to PostgreSQL but for BLOB (BYTEA), AUTOINCREMENT (identity) and WITHOUT ROWID (nothing).
-- Nothing here identifies a person in clear: ids are numbers, digests are keyed, everything else is sealed.

CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);

CREATE TABLE lease (
    name TEXT PRIMARY KEY, holder TEXT NOT NULL, pid BIGINT NOT NULL, token BIGINT NOT NULL, expires_at TEXT NOT NULL
);

-- The key tree. A node's row is replaced in place by an insertion and joined by a new version at a re-key.
CREATE TABLE tree_root (generation BIGINT PRIMARY KEY, crown BLOB NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE tree_node (
    subtree BIGINT NOT NULL, level BIGINT NOT NULL, idx BIGINT NOT NULL, version BIGINT NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (subtree, level, idx, version)
);
CREATE TABLE rekey (
    generation BIGINT PRIMARY KEY, step TEXT NOT NULL, begun_at TEXT NOT NULL, ended_at TEXT, evidence TEXT
);
-- Old roots that had come back into the slot (from a copy) and were destroyed again.
CREATE TABLE stray_root (
    number INTEGER PRIMARY KEY AUTOINCREMENT, generation BIGINT NOT NULL, destroyed_at TEXT NOT NULL, evidence TEXT NOT NULL
);
-- Old roots whose slot destroys them only at a date. called_off: how often somebody called that off and it was begun again, told:
-- how many of those stand in the operation log. destroyed: what was done; evidence: the whole of it, once it was read back as gone.
CREATE TABLE doomed_root (
    generation BIGINT PRIMARY KEY, begun_at TEXT NOT NULL, irrevocable_at TEXT NOT NULL, called_off BIGINT NOT NULL,
    told BIGINT NOT NULL, destroyed TEXT NOT NULL, gone_at TEXT, evidence TEXT
);

-- What the leaves of the tree are for. state: active | retained | dying | destroyed. Retained: its erasure was undone when a
-- newer instance was in use already; it opens old frames, takes no new rows, and dies as an active one does.
-- A subject's lookup stays until its slot is destroyed, so that a hold finds the cells that are to die. died: the first generation
-- without the key; older roots, while there are any, still lead to it.
CREATE TABLE subject (slot BIGINT PRIMARY KEY, lookup BLOB, state TEXT NOT NULL, run TEXT, died BIGINT);
CREATE UNIQUE INDEX subject_lookup ON subject (lookup) WHERE state = 'active';
-- Small beside the one above, so that a shred, which takes its subjects out of it, touches few pages.
CREATE INDEX subject_left ON subject (lookup) WHERE state <> 'active' AND lookup IS NOT NULL;
CREATE INDEX subject_run ON subject (run) WHERE run IS NOT NULL;
CREATE TABLE bucket (
    slot BIGINT PRIMARY KEY, store TEXT NOT NULL, collection TEXT NOT NULL, policy TEXT NOT NULL, period TEXT NOT NULL,
    state TEXT NOT NULL, run TEXT, died BIGINT
);
CREATE UNIQUE INDEX bucket_active ON bucket (store, collection, policy, period) WHERE state = 'active';
CREATE TABLE chain (
    slot BIGINT PRIMARY KEY, store TEXT NOT NULL, state TEXT NOT NULL, created_at TEXT NOT NULL, died BIGINT
);
CREATE TABLE work (
    slot BIGINT PRIMARY KEY, purpose TEXT NOT NULL, reference TEXT NOT NULL, state TEXT NOT NULL, died BIGINT,
    UNIQUE (purpose, reference)
);

-- A cell is subject × bucket; pin is set once its secret lies in a slot of its own. A cell that was made for a fresh pin
-- has that pin's slot in fresh as well: it is another cell than the one of its subject and bucket, and directories name it.
CREATE TABLE cell (
    id INTEGER PRIMARY KEY AUTOINCREMENT, subject BIGINT, bucket BIGINT NOT NULL, fresh BIGINT, pin BIGINT,
    state TEXT NOT NULL
);
CREATE UNIQUE INDEX cell_ref ON cell (COALESCE(subject, -1), bucket, COALESCE(fresh, -1));
CREATE INDEX cell_by_bucket ON cell (bucket);
CREATE INDEX cell_by_subject ON cell (subject);
-- Of several active pins of one lookup and bucket, the newest (highest id) takes new rows. dies_with: the run it dies with.
CREATE TABLE pin (
    id INTEGER PRIMARY KEY AUTOINCREMENT, slot BIGINT NOT NULL UNIQUE, cell BIGINT NOT NULL, lookup BLOB NOT NULL,
    bucket_name TEXT NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL, run TEXT NOT NULL,
    rows BIGINT NOT NULL, dies_with TEXT, died BIGINT
);
CREATE INDEX pin_lookup ON pin (lookup, bucket_name);
CREATE INDEX pin_cell ON pin (cell);

-- Sealing history: which row (keyed digest) was ever sealed in which cell, and by which snapshots. In the order of cells, which is that of
-- reading: digests are in no order, and a snapshot that wrote in theirs would write to every page. Only the small index is in theirs.
-- last_snapshot is never NULL; a constraint would let SQLite copy each page that a snapshot changes.
CREATE TABLE sealed_row (
    row_mac BLOB NOT NULL, cell BIGINT NOT NULL, first_snapshot BIGINT NOT NULL, last_snapshot BIGINT,
    PRIMARY KEY (cell, row_mac)
) WITHOUT ROWID;
CREATE INDEX sealed_row_mac ON sealed_row (row_mac);

-- The change index: where the living rows of a store's newest snapshot lie, with a digest of their content under a subkey of the cell.
-- Entries of a running snapshot count from its commit on; content NULL: the row was removed from that cell. chunk: where in the snapshot the
-- row is sealed. In the order of cells, too: a row is looked for in its cell, and where it lay in another one before, the sealing history
-- tells in which. Not part of an image.
CREATE TABLE change_index (
    id INTEGER PRIMARY KEY AUTOINCREMENT, row_mac BLOB NOT NULL, snapshot BIGINT NOT NULL, cell BIGINT NOT NULL, content BLOB, chunk BIGINT
);
CREATE UNIQUE INDEX change_index_row ON change_index (cell, row_mac, snapshot);
-- What its entries belong to. state: growing | whole. Not part of an image.
CREATE TABLE change_base (
    snapshot BIGINT PRIMARY KEY, store TEXT NOT NULL, schema_digest TEXT NOT NULL, layout_digest TEXT NOT NULL, state TEXT NOT NULL
);
-- Packs that a snapshot has stored and that is not committed, with what its directory is to say of them. Not part of an image.
CREATE TABLE snapshot_pack (
    snapshot BIGINT NOT NULL, number BIGINT NOT NULL, sha256 TEXT NOT NULL, bytes BIGINT NOT NULL, frames BIGINT NOT NULL,
    first_chunk BIGINT NOT NULL, last_chunk BIGINT NOT NULL, entries BLOB NOT NULL, PRIMARY KEY (snapshot, number)
);

-- kind: full | incremental. begins_with: the id of the full snapshot of its chain, its own for a full one. parent: the id of the snapshot that an increment continues. rows: versions sealed in it; living: rows that the store
-- held. why_full: why a full one was taken where an increment was asked for.
CREATE TABLE snapshot (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, store TEXT NOT NULL, chain BIGINT NOT NULL,
    kind TEXT NOT NULL, ledger_position BIGINT NOT NULL, sequence BIGINT NOT NULL, state TEXT NOT NULL,
    manifest TEXT, manifest_sha256 TEXT, rows BIGINT NOT NULL, frames BIGINT NOT NULL, bytes BIGINT NOT NULL,
    begun_at TEXT NOT NULL, committed_at TEXT, begins_with TEXT NOT NULL, parent TEXT,
    living BIGINT NOT NULL, why_full TEXT
);

-- Chains that the retention of backups lets go. state: marked (its key dies with the next shred) | destroyed | removed (its objects are
-- gone too). generation: in which its key was gone, or one after it.
CREATE TABLE pruned_chain (
    chain BIGINT PRIMARY KEY, store TEXT NOT NULL, state TEXT NOT NULL, marked_at TEXT NOT NULL, snapshots BIGINT NOT NULL,
    bytes BIGINT NOT NULL, generation BIGINT, destroyed_at TEXT, locked_until TEXT, removed_at TEXT
);

CREATE TABLE plan (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, request BIGINT, cutoff TEXT NOT NULL,
    created_at TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL
);
-- knot: chunks of a plan that have the same are one transaction.
CREATE TABLE plan_chunk (
    plan TEXT NOT NULL, number BIGINT NOT NULL, store TEXT NOT NULL, collection TEXT NOT NULL, verdict TEXT NOT NULL,
    rows BIGINT NOT NULL, sealed BLOB NOT NULL, state TEXT NOT NULL,
    erased BIGINT NOT NULL, anonymised BIGINT NOT NULL, stripped BIGINT NOT NULL, kept BIGINT NOT NULL, failed BIGINT NOT NULL, note TEXT,
    knot BIGINT,
    PRIMARY KEY (plan, number)
);

-- Who agreed to which plan.
CREATE TABLE approval (plan TEXT NOT NULL, operator TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (plan, operator));

CREATE TABLE run (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, plan TEXT, request BIGINT, state TEXT NOT NULL, begun_at TEXT NOT NULL,
    ended_at TEXT, verified_at TEXT, verified_snapshot BIGINT, grace_until TEXT, generation BIGINT, shredded_at TEXT,
    body TEXT NOT NULL
);

-- What somebody asked of a run, looked at between its batches. wish: go | pause | stop.
CREATE TABLE run_order (
    run TEXT PRIMARY KEY, wish TEXT NOT NULL, rows_per_second BIGINT, transaction_ms BIGINT, asked_by TEXT NOT NULL,
    asked_at TEXT NOT NULL
);
-- How fast a run goes. waits_for: what it waits for between batches.
CREATE TABLE run_pace (
    run TEXT PRIMARY KEY, batches BIGINT NOT NULL, rows BIGINT NOT NULL, worked_ms BIGINT NOT NULL, paused_ms BIGINT NOT NULL,
    longest_ms BIGINT NOT NULL, batch_rows BIGINT NOT NULL, waits_for TEXT
);

-- Rows of runs that have a grace, as they were before, sealed under a work leaf of the run that dies when grace is over.
CREATE TABLE pre_image (
    run TEXT NOT NULL, chunk BIGINT NOT NULL, part BIGINT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (run, chunk, part)
);

-- The ledger of erasures: append-only but for the outcome of an entry. state: intended | done | void | undone | failed,
-- which is void too, and stands for a row that was anonymised and did not pass the read-back. An undone entry is followed by a reversing one (kind put-back, state reversal), which stands for no erasure.
-- left_*, of rows that were anonymised: the keyed digest of what the changed columns were left with, their names (a list in JSON), and
-- the digest of the subject that the row leads to now, empty for none. after_mac, of rows that were anonymised or stripped: as content_mac,
-- of the row as that left it.
CREATE TABLE ledger (
    position INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, chunk BIGINT NOT NULL, store TEXT NOT NULL,
    collection TEXT NOT NULL, row_mac BLOB NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, at TEXT NOT NULL,
    content_mac BLOB, left_mac BLOB, left_columns TEXT, left_lookup BLOB, after_mac BLOB
);
CREATE INDEX ledger_run ON ledger (run, chunk);
CREATE INDEX ledger_row ON ledger (row_mac);

-- Rows that runs erased and that a later look found again, by place. rows: 0 once a look at the whole place finds none any more.
CREATE TABLE found_again (
    run TEXT NOT NULL, store TEXT NOT NULL, collection TEXT NOT NULL, rows BIGINT NOT NULL, looked_at TEXT NOT NULL,
    PRIMARY KEY (run, store, collection)
);

-- refusal: why somebody ended a request of which nothing was carried out, as JSON; none of others.
CREATE TABLE request (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, lookup BLOB NOT NULL, sealed BLOB NOT NULL,
    state TEXT NOT NULL, received_at TEXT NOT NULL, due_at TEXT NOT NULL, run TEXT, closed_at TEXT,
    waits TEXT, reason TEXT, refusal TEXT
);
CREATE TABLE hold (
    id TEXT PRIMARY KEY, scope TEXT NOT NULL, store TEXT, collection TEXT, subject BLOB, reason TEXT NOT NULL,
    placed_at TEXT NOT NULL, placed_by TEXT NOT NULL, released_at TEXT, released_by TEXT
);

CREATE TABLE certificate (
    id TEXT PRIMARY KEY, sequence BIGINT NOT NULL UNIQUE, run TEXT NOT NULL, result TEXT NOT NULL, digest TEXT NOT NULL,
    envelope BLOB NOT NULL, evidence BLOB NOT NULL, issued_at TEXT NOT NULL, supersedes TEXT
);
CREATE TABLE outbox (
    certificate TEXT PRIMARY KEY, state TEXT NOT NULL, attempts BIGINT NOT NULL, next_at TEXT NOT NULL,
    problem TEXT, receipt BLOB, grade TEXT, receipted_at TEXT, alarm BIGINT NOT NULL
);
-- Verified time stamps (RFC 3161) over the signatures of certificates. reply: the authority's answer as it came. at: the time it says.
CREATE TABLE time_stamp (certificate TEXT PRIMARY KEY, reply BLOB NOT NULL, at TEXT NOT NULL, authority TEXT NOT NULL);

CREATE TABLE job_run (
    job TEXT NOT NULL, scheduled_for TEXT NOT NULL, state TEXT NOT NULL, begun_at TEXT NOT NULL, ended_at TEXT,
    outcome TEXT, PRIMARY KEY (job, scheduled_for)
);
-- When objects of the bucket were last read back and good; what lets samples take turns. Stays behind when the state is sealed.
CREATE TABLE read_back (object TEXT PRIMARY KEY, store TEXT NOT NULL, at TEXT NOT NULL);

-- number: from 1 without gaps, as the signed record says, which also holds the digest of the record before it. returned: rows and
-- frames of erased data that were there again.
CREATE TABLE drill (
    id TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, store TEXT NOT NULL, snapshot TEXT NOT NULL, passed BIGINT NOT NULL,
    returned BIGINT NOT NULL, at TEXT NOT NULL, record BLOB NOT NULL
);

-- Which keys sign certificates, manifests and drill records, and which did, with their times: the newest record counts, and is signed by
-- the key in use. None as long as the first key, in a file, is the only one.
CREATE TABLE signing_keys (number BIGINT PRIMARY KEY, recorded_at TEXT NOT NULL, record BLOB NOT NULL);

-- Keys in a key service that applications seal fields with and that the agent answers for. name: the entry of the configuration.
-- state: active | ended (nothing relies on it since ended_at) | destroying (intent) | doubtful (an intent whose outcome is not
-- known) | doomed (its service deletes it at a date) | destroyed | released. lookup: of a subject's key, until it is destroyed.
-- place_mac: keyed digest of entry and own name. sealed: whose it is and its own name, under a work leaf of its own that dies with it.
CREATE TABLE outside_key (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, lookup BLOB, place_mac BLOB NOT NULL, sealed BLOB NOT NULL, state TEXT NOT NULL,
    registered_at TEXT NOT NULL, ended_at TEXT, due_at TEXT, destroyed_at TEXT, body TEXT NOT NULL
);

-- Media with copies of data, as operators reported them. number: from 1 without gaps. event: destroyed | lost. state: recorded, and of
-- lost ones shredding (keys are to die) | settled. body: what is known of it, JSON; the only people in it are operators. certified:
-- what the newest certificate tells of.
CREATE TABLE media (
    id TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, event TEXT NOT NULL, state TEXT NOT NULL, happened_at TEXT NOT NULL,
    recorded_at TEXT NOT NULL, body TEXT NOT NULL, certified TEXT
);
