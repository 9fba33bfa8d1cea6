package loop

import (
	"testing"
	"time"
)

// Only one holder has the mutex. Others get it when it is unlocked, or give up in time.
func TestPatientMutex(t *testing.T) {
	var m patientMutex
	if !m.LockWithin(0) || m.TryLock() || m.LockWithin(time.Millisecond) {
		t.Fatal("not locked once")
	}
	locked := make(chan bool)
	go func() { locked <- m.LockWithin(time.Minute) }()
	m.Unlock()
	if !<-locked || m.TryLock() {
		t.Error("an unlocked mutex was not locked once")
	}
}
