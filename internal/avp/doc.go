// Package avp lets programs written for Amazon Verified Permissions run against copse with nothing
// changed but the endpoint: the same protocol (awsJson1_0 on POST /, signed with SigV4), the same
// operations, members, limits and error shapes.
//
// What a caller may rely on, beyond AVP's own documentation:
//
//   - Every operation is one row of a table ([operations]); a test compares it with the SDK's client.
//   - Nothing is ignored in silence. AVP drops members it does not know; here they are refused, since
//     a misspelt member may be a safety setting that then does not hold.
//   - Every client error is 400, as in AVP's reference, except for those of the credential (403), a
//     body over the limit (413) and a content type that is not awsJson1_0 (415). An answer that can't
//     be known now is 503 ServiceUnavailableException, which every SDK retries.
//   - A client token is remembered for eight hours, by operation and policy store, in the commit that made the
//     thing. Deleting a policy store forgets its token with it.
//   - maxResults over 50 is taken as 50. A page may be short while nextToken is set.
//
// The package decodes no Cedar value: entities and context are cut out of the message and handed to
// the decider as they arrived.
package avp
