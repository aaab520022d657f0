-- One text for SQLite and PostgreSQL: types TEXT, BIGINT, BOOLEAN and BYTEA only.
-- Times are microseconds since 1970 (0 = never). A doc column holds one JSON
-- document that is only read whole; whatever is searched or sorted by has its own
-- column. A crc column guards the row's content against damage.

-- +goose Up
CREATE TABLE sequences (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE organizations (
    id   TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    doc  TEXT NOT NULL,
    crc  BIGINT NOT NULL
);

CREATE TABLE email_accounts (
    id           TEXT PRIMARY KEY,
    organization TEXT NOT NULL REFERENCES organizations (id),
    name         TEXT NOT NULL,
    is_default   BOOLEAN NOT NULL,
    doc          TEXT NOT NULL,
    crc          BIGINT NOT NULL
);
CREATE INDEX email_accounts_organization ON email_accounts (organization, name);
CREATE UNIQUE INDEX email_accounts_default ON email_accounts (organization) WHERE is_default;

CREATE TABLE secrets (
    owner_table TEXT NOT NULL,
    owner       TEXT NOT NULL,
    name        TEXT NOT NULL,
    sealed      BYTEA NOT NULL,
    PRIMARY KEY (owner_table, owner, name)
);

CREATE TABLE crm_tables (
    organization TEXT NOT NULL REFERENCES organizations (id),
    name         TEXT NOT NULL,
    doc          TEXT NOT NULL,
    crc          BIGINT NOT NULL,
    PRIMARY KEY (organization, name)
);

CREATE TABLE lists (
    id         TEXT PRIMARY KEY,
    account    TEXT NOT NULL REFERENCES email_accounts (id),
    crm_id     TEXT NOT NULL,
    name       TEXT NOT NULL,
    sync_order BIGINT NOT NULL,
    doc        TEXT NOT NULL,
    crc        BIGINT NOT NULL,
    UNIQUE (account, crm_id)
);

CREATE TABLE labels (
    id       TEXT PRIMARY KEY,
    account  TEXT NOT NULL REFERENCES email_accounts (id),
    name_key TEXT NOT NULL,
    doc      TEXT NOT NULL,
    crc      BIGINT NOT NULL,
    UNIQUE (account, name_key)
);

CREATE TABLE mappings (
    id         TEXT PRIMARY KEY,
    account    TEXT NOT NULL REFERENCES email_accounts (id),
    label_key  TEXT NOT NULL,
    table_name TEXT NOT NULL,
    direction  TEXT NOT NULL,
    doc        TEXT NOT NULL,
    crc        BIGINT NOT NULL,
    UNIQUE (account, label_key, table_name, direction)
);

CREATE TABLE runs (
    id               TEXT PRIMARY KEY,
    account          TEXT NOT NULL REFERENCES email_accounts (id),
    type             TEXT NOT NULL,
    list             TEXT NOT NULL,
    mode             TEXT NOT NULL,
    preview          TEXT NOT NULL,
    status           TEXT NOT NULL,
    stage            TEXT NOT NULL,
    counts           TEXT NOT NULL,
    calls            TEXT NOT NULL,
    created          BIGINT NOT NULL,
    started          BIGINT NOT NULL,
    ended            BIGINT NOT NULL,
    error            TEXT NOT NULL,
    hint             TEXT NOT NULL,
    cancel_requested BOOLEAN NOT NULL,
    fence            BIGINT NOT NULL,
    job              BIGINT NOT NULL,
    progress         BYTEA,
    progress_crc     BIGINT NOT NULL
);
CREATE INDEX runs_newest ON runs (created, id);
CREATE INDEX runs_account ON runs (account, created, id);
-- One live run for each account, sync type and list; jobs relies on it.
CREATE UNIQUE INDEX runs_live ON runs (account, type, list) WHERE status IN ('queued', 'in_process');

-- state: 1 planned, 2 sent, 3 acknowledged, 4 refused, 5 unknown, 6 dropped.
CREATE TABLE journal (
    id      BIGINT PRIMARY KEY,
    run     TEXT NOT NULL REFERENCES runs (id),
    account TEXT NOT NULL,
    preview BOOLEAN NOT NULL,
    kind    BIGINT NOT NULL,
    state   BIGINT NOT NULL,
    job     TEXT NOT NULL,
    size    BIGINT NOT NULL,
    planned BIGINT NOT NULL,
    ended   BIGINT NOT NULL,
    payload BYTEA NOT NULL,
    crc     BIGINT NOT NULL
);
CREATE INDEX journal_run ON journal (run, id);
CREATE INDEX journal_open ON journal (account, id) WHERE state IN (1, 2, 5);

-- A link batch is kept in parts of 16 KiB, so that one link is read and checked
-- without reading its whole batch.
CREATE TABLE links (
    blob    BIGINT NOT NULL,
    part    BIGINT NOT NULL,
    parts   BIGINT NOT NULL,
    account TEXT NOT NULL,
    payload BYTEA NOT NULL,
    crc     BIGINT NOT NULL,
    PRIMARY KEY (blob, part)
);
CREATE INDEX links_account ON links (account, blob, part);

CREATE TABLE members (
    id      BIGINT PRIMARY KEY,
    list    TEXT NOT NULL,
    payload BYTEA NOT NULL,
    crc     BIGINT NOT NULL
);
CREATE INDEX members_list ON members (list, id);

-- How many blobs each log holds: a blob that vanished is noticed.
CREATE TABLE logs (
    name  TEXT PRIMARY KEY,
    blobs BIGINT NOT NULL
);

CREATE TABLE cursors (
    account TEXT NOT NULL,
    name    TEXT NOT NULL,
    value   TEXT NOT NULL,
    crc     BIGINT NOT NULL,
    PRIMARY KEY (account, name)
);

CREATE TABLE findings (
    id         TEXT PRIMARY KEY,
    run        TEXT NOT NULL,
    account    TEXT NOT NULL,
    code       TEXT NOT NULL,
    table_name TEXT NOT NULL,
    record     TEXT NOT NULL,
    contact    TEXT NOT NULL,
    list       TEXT NOT NULL,
    field      TEXT NOT NULL,
    message    TEXT NOT NULL,
    hint       TEXT NOT NULL,
    at         BIGINT NOT NULL
);
CREATE INDEX findings_run ON findings (run, id);

CREATE TABLE conflicts (
    id            TEXT PRIMARY KEY,
    run           TEXT NOT NULL,
    account       TEXT NOT NULL,
    table_name    TEXT NOT NULL,
    record        TEXT NOT NULL,
    contact       TEXT NOT NULL,
    label         TEXT NOT NULL,
    column_name   TEXT NOT NULL,
    base_kind     BIGINT NOT NULL,
    base          TEXT NOT NULL,
    crm_kind      BIGINT NOT NULL,
    crm           TEXT NOT NULL,
    platform_kind BIGINT NOT NULL,
    platform      TEXT NOT NULL,
    crm_at        BIGINT NOT NULL,
    platform_at   BIGINT NOT NULL,
    policy        TEXT NOT NULL,
    winner        TEXT NOT NULL,
    resolved      BOOLEAN NOT NULL,
    resolved_by   TEXT NOT NULL,
    detected_at   BIGINT NOT NULL,
    resolved_at   BIGINT NOT NULL
);
CREATE INDEX conflicts_account ON conflicts (account, detected_at, id);
CREATE INDEX conflicts_run ON conflicts (run, detected_at, id);

-- id is run, zero byte, kind, zero byte, key: one column, so that every read is one
-- range of the primary key, whatever the planner knows of a table filled just now.
CREATE TABLE staged (
    id      BYTEA PRIMARY KEY,
    payload BYTEA NOT NULL,
    crc     BIGINT NOT NULL
);

CREATE TABLE api_tokens (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    scopes  TEXT NOT NULL,
    salt    BYTEA NOT NULL,
    hash    BYTEA NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
