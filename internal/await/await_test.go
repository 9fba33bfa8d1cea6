package await

import (
	"context"
	"errors"
	"os"
	"testing"
)

func TestResult(t *testing.T) {
	if got, err := Result(t.Context(), func() (int, error) { return 1, os.ErrExist }); got != 1 || !errors.Is(err, os.ErrExist) {
		t.Errorf("%d, error %v", got, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(os.ErrClosed)
	end := make(chan struct{})
	defer close(end)
	if got, err := Result(ctx, func() (int, error) { <-end; return 1, nil }); got != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("without an answer: %d, error %v", got, err)
	}
}
