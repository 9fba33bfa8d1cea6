package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
)

// keepSecrets is called before a process has a key: it leaves no core dump
// then, and another process of the same user can't look into it (ptrace(2),
// PR_SET_DUMPABLE in prctl(2)). The key's own memory is locked and left out of
// dumps besides (transfer.Secret); what is derived from a passphrase is not.
func keepSecrets() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep others out: %w", err)
	}
	return nil
}

// receiveKey returns the key that the job's descriptor has, nil for none.
func (j *job) receiveKey() (*transfer.Secret, error) {
	if j.key == nil {
		return nil, nil
	}
	if err := keepSecrets(); err != nil {
		return nil, err
	}
	key, err := readKey(j.key, maxKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("receive the key: %w", err)
	}
	return key, j.key.Close()
}
