package snapshotter

import "sync"

// requests are what goes on at the moment. The zero value is none.
type requests struct {
	mu    sync.Mutex // protects what is below
	byKey map[string]*request
}

// request is for a snapshot. Its lock is taken without that of requests.
type request struct {
	mu    sync.Mutex
	users int // that have the lock or wait for it
}

// lock waits for the end of all requests for a snapshot, and returns what ends
// this one.
func (r *requests) lock(key string) (unlock func()) {
	r.mu.Lock()
	if r.byKey == nil {
		r.byKey = map[string]*request{}
	}
	this := r.byKey[key]
	if this == nil {
		this = &request{}
		r.byKey[key] = this
	}
	this.users++
	r.mu.Unlock()
	this.mu.Lock()
	return func() {
		this.mu.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		if this.users--; this.users == 0 {
			delete(r.byKey, key)
		}
	}
}
