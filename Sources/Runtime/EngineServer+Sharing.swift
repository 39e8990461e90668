import KVCache

// Contexts that begin alike, as choices of one prompt and requests with one system message do, are read once: what one
// sequence reads, those that came later take over. A fork has the bits of what was read twice.
extension EngineServer {
  /// Tokens that are worth waiting for.
  static let leastSharedCount = 32

  /// Has a new sequence take over the beginning of its context from whoever reads, or has read, most of it.
  func findLeader(of sequence: ActiveSequence) {
    guard attendsOverAll, sequence.record.request.pooling == nil else { return }
    var best = sequence.position + Self.leastSharedCount - 1
    for other in sequences.values where other !== sequence && other.isWanted {
      let known = isUnderWay(other) ? other.path.count : other.position
      // One token is left to be read: logits follow it.
      let most = min(known, sequence.path.count - 1)
      guard most > best else { continue }
      // What is past may be gone on with further back alone.
      let common = zip(sequence.path.prefix(most), other.path).prefix { $0 == $1 }.count
      let count =
        other.position > common ? other.cache.restorePoint(atOrBefore: common) : common
      guard count > best else { continue }
      best = count
      sequence.leader = ActiveSequence.Leader(sequence: other, tokenCount: count)
    }
  }

  /// Before a sweep: those whose leader has read all that they share, or reads no further, go on by themselves.
  func followLeaders() {
    for sequence in sequences.values {
      guard let leader = sequence.leader else { continue }
      let origin = leader.sequence
      let isThere = sequences[origin.record.id] === origin
      guard isThere, origin.path.count >= leader.tokenCount,
        origin.path.prefix(leader.tokenCount) == sequence.path.prefix(leader.tokenCount)
      else {
        // It left, or was cut.
        sequence.leader = nil
        continue
      }
      if origin.position < leader.tokenCount, isUnderWay(origin), origin.isWanted { continue }
      sequence.leader = nil
      takeOver(min(leader.tokenCount, origin.position), from: origin, sequence)
    }
  }

  private func takeOver(
    _ tokenCount: Int, from origin: ActiveSequence, _ sequence: ActiveSequence
  ) {
    let limit = sequence.record.request.contextLength(in: core.plan)
    guard tokenCount - sequence.position >= Self.leastSharedCount, origin.position <= limit else {
      return
    }
    core.close(sequence.cache)
    sequence.persistence = nil
    do throws(RuntimeError) {
      do throws(RuntimeError) {
        sequence.adopt(
          try core.fork(origin.cache, limit: sequence.record.request.contextLimit),
          position: origin.position)
        try rewind(sequence, to: tokenCount)
      } catch {
        // Where the origin's context cannot be used, its own is computed.
        core.close(sequence.cache)
        sequence.adopt(
          try core.openSequence(limit: sequence.record.request.contextLimit), position: 0)
      }
    } catch {
      exchange.fail(sequence.record, error)
      return leave(sequence.record)
    }
    follow(sequence)
    exchange.begin(sequence.record, sequence.noteStart())
  }
}
