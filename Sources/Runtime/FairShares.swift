/// Whose turn it is, where clients ask for more than can be done at a time.
///
/// Each client has a count of the rows that were computed for it, and whoever has the lowest comes first. A client that
/// begins to ask is put level with the lowest of those that ask already: nobody saves up, and nobody pays for what it had while
/// nobody else asked. So rows are shared equally among those that ask, by what was computed and not by the number of
/// requests.
///
/// Something of a priority *p* stands back until `p × priorityRowCount` rows were computed since it came. After that it
/// waits like any other, so nothing waits for ever. No clock has a part in it.
package struct FairShares {
  /// Something that waits for its turn.
  package struct Claim: Sendable {
    package var client: String
    /// 0 = at once; more stand back for longer.
    package var priority: Int
    /// ``FairShares/rowCount`` when it came.
    package var startRowCount: Int

    package init(client: String, priority: Int = 0, startRowCount: Int = 0) {
      self.client = client
      self.priority = priority
      self.startRowCount = startRowCount
    }
  }

  private struct Account {
    /// Rows computed for it, from where it began to ask.
    var position: Int
    /// All that were.
    var rowCount = 0
    var placeCount = 0
    var waitingCount = 0

    var asks: Bool { placeCount + waitingCount > 0 }
  }

  /// Rows that a place counts as before anything was computed in it.
  package static let placeRowCount = 64
  /// Rows that a step of priority stands back for.
  package static let priorityRowCount = 4096
  /// Clients that are remembered when they ask for nothing.
  private static let accountCapacity = 1024

  private var accounts: [String: Account] = [:]
  /// Where a client begins.
  private var floor = 0
  /// Rows computed for all clients.
  package private(set) var rowCount = 0

  package init() {}

  /// Notes that a client has more, or fewer, places and things that wait for one.
  package mutating func note(_ client: String, places: Int = 0, waiting: Int = 0) {
    var account = accounts[client] ?? Account(position: floor)
    if !account.asks { account.position = max(account.position, floor) }
    account.placeCount += places
    account.waitingCount += waiting
    accounts[client] = account
    guard !account.asks else { return }
    if accounts.values.allSatisfy({ !$0.asks }) {
      // Who had most of what nobody else wanted owes nothing.
      floor = max(floor, account.position)
      floor = accounts.values.reduce(floor) { max($0, $1.position) }
    }
    if accounts.count > Self.accountCapacity { accounts = accounts.filter(\.value.asks) }
  }

  /// Notes rows that were computed for a client.
  package mutating func charge(_ client: String, rows: Int) {
    rowCount += rows
    accounts[client]?.position += rows
    accounts[client]?.rowCount += rows
  }

  /// Notes that all of a sweep's rows were charged.
  package mutating func settle() {
    let lowest = accounts.values.lazy.filter(\.asks).map(\.position).min()
    floor = max(floor, lowest ?? floor)
  }

  /// Numbers of claims in the order in which they have their turns.
  ///
  /// - Parameters:
  ///   - claims: the oldest first.
  ///   - countsPlaces: whether the turn is for a place, of which each counts for its client.
  package func order(_ claims: [Claim], countsPlaces: Bool) -> [Int] {
    let patience = claims.map { claim in
      max(0, claim.priority * Self.priorityRowCount - (rowCount - claim.startRowCount))
    }
    // What a client asks for has an order of its own, in which it takes up places.
    var positions = [Int](repeating: 0, count: claims.count)
    var nextPositions: [String: Int] = [:]
    for number in claims.indices.sorted(by: { (patience[$0], $0) < (patience[$1], $1) }) {
      let client = claims[number].client
      let position = nextPositions[client] ?? position(of: client, countsPlaces: countsPlaces)
      positions[number] = position + patience[number]
      nextPositions[client] = position + (countsPlaces ? Self.placeRowCount : 0)
    }
    return claims.indices.sorted { (positions[$0], $0) < (positions[$1], $1) }
  }

  private func position(of client: String, countsPlaces: Bool) -> Int {
    guard let account = accounts[client] else { return floor }
    return account.position + (countsPlaces ? account.placeCount * Self.placeRowCount : 0)
  }

  /// What each client has, in the order of their names.
  package var clients: [EngineStatistics.Client] {
    accounts.sorted { $0.key < $1.key }.map { name, account in
      EngineStatistics.Client(
        name: name, openCount: account.placeCount, queuedCount: account.waitingCount,
        rowCount: account.rowCount)
    }
  }
}
