package backing

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/scripts/abicheck"
)

func TestUAPI(t *testing.T) {
	abicheck.Check(t, abicheck.Compiled{
		Vars: map[string]any{
			"BLOCK_URING_CMD_DISCARD": BLOCK_URING_CMD_DISCARD,
		},
	})
}
