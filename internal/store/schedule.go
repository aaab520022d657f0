package store

import (
	"context"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// scheduleDoc is what is kept of a schedule beside when it is due.
type scheduleDoc struct {
	lockstep.Schedule
	Run      string        `json:"run,omitempty"`
	Idle     int           `json:"idle,omitempty"`
	Again    bool          `json:"again,omitempty"`
	Earliest int64         `json:"earliest,omitempty"` // microseconds
	Pause    time.Duration `json:"pause,omitempty"`    // in nanoseconds
}

func scanSchedule(r interface{ Scan(...any) error }) (lockstep.SyncSchedule, error) {
	var account, syncType, text string
	var next, crc int64
	if err := r.Scan(&account, &syncType, &next, &text, &crc); err != nil {
		return lockstep.SyncSchedule{}, err
	}
	var doc scheduleDoc
	err := fromDoc(text, crc, &doc, "schedule", account, syncType)
	return lockstep.SyncSchedule{
		Account: account, Type: lockstep.SyncType(syncType), Next: fromMicros(next),
		Schedule: doc.Schedule, Run: doc.Run, Idle: doc.Idle, Again: doc.Again, Earliest: fromMicros(doc.Earliest), Pause: doc.Pause,
	}, err
}

// Schedules returns the stored schedules of an account, or of all when account is
// empty, in no order. A sync type without one has its default.
func (s *Store) Schedules(ctx context.Context, account string) ([]lockstep.SyncSchedule, error) {
	all, err := schedules(ctx, s.db, account)
	return all, in("store: read schedules", err)
}

func schedules(ctx context.Context, r Reader, account string) ([]lockstep.SyncSchedule, error) {
	var w filter
	if account != "" {
		w.and("account = ?", account)
	}
	return collect(ctx, r, func(r Rows) (lockstep.SyncSchedule, error) { return scanSchedule(r) },
		`SELECT account, type, next, doc, crc FROM schedules`+w.text.String(), w.args...)
}

// ScheduleIn returns a stored schedule within tx, and keeps others from changing it until
// the transaction ends. CodeNotFound.
func (s *Store) ScheduleIn(ctx context.Context, tx Tx, account string, t lockstep.SyncType) (lockstep.SyncSchedule, error) {
	// Writing the row locks it on PostgreSQL; SQLite has one writer anyway.
	sc, err := scanSchedule(tx.QueryRow(ctx, `UPDATE schedules SET next = next WHERE account = $1 AND type = $2 RETURNING account, type, next, doc, crc`, account, string(t)))
	return sc, missing("store: read schedule", err, "schedule of", string(t))
}

// SaveScheduleIn stores a schedule, and when it is due, within tx.
func (s *Store) SaveScheduleIn(ctx context.Context, tx Tx, sc lockstep.SyncSchedule) error {
	doc, crc, err := toDoc(scheduleDoc{sc.Schedule, sc.Run, sc.Idle, sc.Again, micros(sc.Earliest), sc.Pause}, "schedule", sc.Account, string(sc.Type))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO schedules (account, type, next, doc, crc) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (account, type) DO UPDATE SET next = excluded.next, doc = excluded.doc, crc = excluded.crc`,
		sc.Account, string(sc.Type), micros(sc.Next), doc, crc)
	return in("store: save schedule", err)
}
