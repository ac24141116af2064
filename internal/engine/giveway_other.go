//go:build !linux

package engine

// giveWay is for servers under load, which run on Linux.
func giveWay() {}
