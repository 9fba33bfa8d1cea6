// Package await waits for calls of the kernel that nothing can interrupt, such as a read from a disk
// that does not answer, or from a pipe without a writer.
package await

import "context"

// Result calls a function, and returns its results. If the context is done before, Result returns the cause, and the
// function goes on by itself until its call or the process ends. Therefore the caller may not change what it uses.
func Result[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type results struct {
		value T
		err   error
	}
	done := make(chan results, 1)
	go func() { // ends with the call
		value, err := call()
		done <- results{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
