package dataverse

import (
	"testing"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
)

func TestSealProtectsTheSetUp(t *testing.T) {
	s := New(Options{Clock: clock.New()})
	s.Seal()
	if _, err := s.AddApplicationUser(AppUser{ClientID: "6c1b1d1a-4d51-4d6b-9a1e-3a0d2b1c0f01"}); err != nil {
		t.Fatal(err)
	}
	if s.Restore(1_000_000) == 0 {
		t.Error("nothing was taken back")
	}
	if s.store.View().Get("organization", s.org.id) == nil {
		t.Error("the organization is gone")
	}
	s.Seal()
	if n := s.Restore(1_000_000); n != 0 {
		t.Errorf("%d writes taken back past the seal", n)
	}
}
