package main

import (
	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// This file has what differs between a server that makes its device and one
// that takes one over.

// device returns the device that the job is about, served by this process.
func (j *job) device(ctl *ublk.Control) (*loop.Device, error) {
	key, err := j.receiveKey()
	if err != nil {
		return nil, err
	}
	if j.Recover != nil {
		return loop.Recover(ctl, *j.Recover, j.file, loop.RecoverOptions{Key: key})
	}
	cfg := j.Config
	cfg.Key = key
	return loop.Attach(ctl, j.file, cfg)
}

// ready tells the client that the device can be used. A device that was taken
// over is used already, whatever has become of who wanted that.
func (j *job) ready(r requester, status client.Device) error {
	err := r.Ready(status)
	if j.Recover != nil {
		return nil
	}
	return err
}
