package jobs

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// live shows signs of life, and takes over the jobs of processes that do not, until
// j.life is called.
func (j *Jobs) live(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var over sync.WaitGroup
	if j.scheduler != nil {
		over.Go(func() { j.wakeUp(ctx) })
	}
	over.Go(func() {
		tick := time.NewTicker(j.timing.beat)
		defer tick.Stop()
		others := newLookout(j.timing)
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := j.pulse(ctx, others); err != nil && ctx.Err() == nil {
				j.log.Warn("the processes that live could not be told from those that do not", "err", err)
			}
		}
	})
	j.life = func() {
		cancel()
		over.Wait()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if !j.store.Exclusive() {
			_ = j.store.StopBeats(last, j.queue.id()) // else it is found dead in a while
		}
	}
}

// pulse shows a sign of life and takes over what the dead worked on.
func (j *Jobs) pulse(ctx context.Context, others *lookout) error {
	self := j.queue.id()
	asked := time.Now() // before the others' signs are read: no later moment speaks against them
	beats := map[string]int64{}
	if !j.store.Exclusive() {
		err := j.store.Beat(ctx, self)
		if err == nil {
			beats, err = j.store.Beats(ctx)
		}
		if err != nil {
			return err
		}
	}
	if err := j.queue.hasten(ctx); err != nil {
		return err
	}
	claims, err := j.queue.claimed(ctx)
	if err != nil {
		return err
	}
	stored := maps.Clone(beats)
	for i := range claims {
		c := &claims[i]
		if c.by == self && !j.busy(c.job) {
			// It ended here and that could not be stored, or it is about to begin.
			c.by = fmt.Sprint(self, " ", c.job, " ", c.at.UnixMicro())
		}
		if _, known := beats[c.by]; !known {
			beats[c.by] = 0 // it has stopped, or never showed one
		}
	}
	others.look(beats, asked)
	for _, c := range claims {
		if c.by != self && others.dead(c.by) {
			if err := j.takeOver(ctx, c); err != nil {
				return err
			}
		}
	}
	for id := range stored {
		if id != self && others.dead(id) {
			if err := j.store.StopBeats(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// begun and over note which jobs this process works on.
func (j *Jobs) begun(job int64) { j.note(job, 1) }
func (j *Jobs) over(job int64)  { j.note(job, -1) }

func (j *Jobs) note(job int64, by int) {
	defer j.stir.note()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.working[job] += by; j.working[job] == 0 {
		delete(j.working, job)
	}
}

func (j *Jobs) busy(job int64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.working[job] > 0
}

// takeOver gives a run whose process is lost a new job. The old one is ended rather
// than made available again, so that a process which wakes up after all has nothing
// left to say about it.
func (j *Jobs) takeOver(ctx context.Context, c claim) error {
	run, err := j.store.Run(ctx, c.run)
	gone := lockstep.CodeOf(err) == lockstep.CodeNotFound
	if err != nil && !gone {
		return err
	}
	j.log.Warn("taking over a run that nobody works on any more", "run", c.run, "process", c.by)
	return j.store.InTx(ctx, func(tx store.Tx) error {
		if err := j.queue.abandon(ctx, tx, c); err != nil || gone || run.Status.Ended() {
			return err
		}
		return j.carry(ctx, tx, run)
	})
}
