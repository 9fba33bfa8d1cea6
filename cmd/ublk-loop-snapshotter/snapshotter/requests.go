package snapshotter

import "sync"

// requests serializes the requests for each snapshot. The zero value is ready for use.
type requests struct {
	mu    sync.Mutex // protects byKey and each users
	byKey map[string]*request
}

// request is the lock of one snapshot. The lock of requests must not be held while mu is
// taken.
type request struct {
	mu    sync.Mutex
	users int // number of requests that hold the lock or wait for it
}

// lock waits until no other request for the snapshot runs. The returned function unlocks
// it.
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
