import TensorBasics

// Who gets a place, and whose prompt is read first. All of it is with the lock held.
extension EngineExchange {
  func takePlace(_ record: SequenceRecord) {
    freePlaceCount -= 1
    record.hasPlace = true
    record.usage.beginNanoseconds = monotonicNanoseconds()
    shares.note(record.request.client, places: 1)
  }

  /// A sequence gives its place to whoever's turn it is; its memory is free before orders that come now are carried out.
  func releasePlace(of record: SequenceRecord) {
    guard record.hasPlace else { return }
    record.hasPlace = false
    freePlaceCount += 1
    shares.note(record.request.client, places: -1)
    guard let first = shares.order(waiting.map(\.claim), countsPlaces: true).first,
      case let next = waiting.remove(at: first), case .queued(let turn) = next.condition
    else { return }
    next.condition = .underWay
    next.mailbox.ahead = nil
    // The place first: whoever has one asks for something.
    takePlace(next)
    shares.note(next.request.client, waiting: -1)
    give(.begin(next, turn))
    hasNewOrder = true
  }

  /// Has a sequence wait for a place.
  func enqueue(_ record: SequenceRecord) {
    shares.note(record.request.client, waiting: 1)
    // As many as can be; the next sweep ends with how many it is.
    record.aheadCount = waiting.count
    record.mailbox.ahead = waiting.count
    waiting.append(record)
    hasNewOrder = true
    notify(record)
  }

  /// A sequence waits no more.
  func dequeue(_ record: SequenceRecord) {
    waiting.removeAll { $0 === record }
    shares.note(record.request.client, waiting: -1)
    hasNewOrder = true
  }

  /// Charges clients for a sweep, and tells those who wait for a place how many are before them now.
  func settle(_ members: [ActiveSequence]) {
    for member in members {
      shares.charge(member.record.request.client, rows: member.news.rowCount)
    }
    shares.settle()
    guard hasNewOrder, !waiting.isEmpty else { return }
    hasNewOrder = false
    let order = shares.order(waiting.map(\.claim), countsPlaces: true)
    for (ahead, number) in order.enumerated() {
      let record = waiting[number]
      guard record.aheadCount != ahead else { continue }
      record.aheadCount = ahead
      record.mailbox.ahead = ahead
      notify(record)
    }
  }

  /// Prompts that are read, in the order in which they have rows of a sweep; takes the lock.
  ///
  /// - Parameter prompts: the oldest first.
  func inTurn(_ prompts: [ActiveSequence]) -> [ActiveSequence] {
    guard prompts.count > 1 else { return prompts }
    let order = locked { shares.order(prompts.map(\.record.claim), countsPlaces: false) }
    return order.map { prompts[$0] }
  }
}
