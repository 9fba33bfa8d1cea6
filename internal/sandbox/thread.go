package sandbox

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// startThread starts a function in a thread of its own, which ends with it.
func startThread(f func()) {
	go func() { // ends with f
		runtime.LockOSThread() // for good, so that the thread ends with the goroutine
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		// The first thread does not end with a goroutine, and its root directory is that of the process for others. While
		// this goroutine has it, another goroutine gets another thread.
		other := make(chan struct{})
		startThread(func() {
			close(other)
			f()
		})
		<-other
		runtime.UnlockOSThread()
	}()
}
