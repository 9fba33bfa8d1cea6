package control

import (
	"crypto/rand"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// checkRandomKeys refuses random keys for a device that could get another server, which could
// not have them, and for one that has other keys or none.
func checkRandomKeys(req *client.AddRequest, hasKey bool) error {
	switch {
	case !req.RandomKeys:
		return nil
	case req.Table == "" || hasKey:
		return fmt.Errorf("random_keys without a table, or with a key: %w", unix.EINVAL)
	case req.Config.OnCrash != "" && req.Config.OnCrash != string(loop.CrashFail):
		return fmt.Errorf("random_keys with on_crash %s, but they end with the server: %w", req.Config.OnCrash, unix.EINVAL)
	}
	return nil
}

// makeKeys makes the keys of the lines with the target crypt. They are in locked memory from
// their beginning.
func makeKeys(tables *table.Stack) (*transfer.Secret, error) {
	total := tables.KeyBytes()
	if total == 0 {
		return nil, fmt.Errorf("random_keys for tables without crypt: %w", unix.EINVAL)
	}
	keys, err := transfer.NewSecret(total)
	if err != nil {
		return nil, fmt.Errorf("make the keys: %w", err)
	}
	_, _ = rand.Read(keys.Bytes()) // it never returns an error
	return keys, nil
}
