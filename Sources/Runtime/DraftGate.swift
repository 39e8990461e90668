/// How often a sequence's drafts were right, by how sure the drafter was and how deep they lay: moving averages.
struct DraftAcceptance {
  /// What is assumed of each grade before anything was seen: those of matches, of a model's probabilities, and of what
  /// followed the same two tokens, and the same one.
  private static let priors =
    [0.3, 0.55, 0.75, 0.9, 0.96] + [0.35, 0.55, 0.8, 0.93, 0.98]
    + [0.02, 0.06, 0.15, 0.35, 0.6, 0.85] + [0.02, 0.05, 0.1, 0.2, 0.3, 0.45]
  /// Grades of a drafter's certainty.
  static let gradeCount = priors.count
  private static let matchGradeCount = 5
  private static let depthCount = 5
  /// Ranks beside the first that are told apart.
  static let rankCount = 3
  private static let leastWeight = 1.0 / 16

  private struct Cell {
    var share: Double
    var count = 0
  }
  /// [gradeCount, depthCount], then [gradeCount, rankCount]
  private var cells =
    priors.flatMap { prior in [Cell](repeating: Cell(share: prior), count: depthCount) }
    + priors.flatMap { prior in
      (0..<rankCount).map { Cell(share: (1 - prior) / Double(2 << $0)) }
    }

  /// Grade of a token of that probability.
  static func grade(probability: Double) -> Int {
    switch probability {
    case ..<0.4: matchGradeCount
    case ..<0.7: matchGradeCount + 1
    case ..<0.95: matchGradeCount + 2
    case ..<0.99: matchGradeCount + 3
    default: matchGradeCount + 4
    }
  }

  /// Grade of a match of that many tokens.
  static func grade(matchLength: Int) -> Int {
    switch matchLength {
    case ..<2: 0
    case ..<3: 1
    case ..<6: 2
    case ..<16: 3
    default: 4
    }
  }

  /// Grade of a token that followed before, by how likely it was then, and whether it followed the same two tokens.
  static func grade(successor grade: Int, isInContext: Bool) -> Int {
    2 * matchGradeCount + (isInContext ? 0 : TokenSuccessors.gradeCount) + grade
  }

  /// The place of tokens of a certainty and depth, and where others are likelier in their place, of that rank.
  static func cell(grade: Int, depth: Int, rank: Int = 0) -> Int {
    guard rank == 0 else {
      return gradeCount * depthCount + grade * rankCount + min(rank, rankCount) - 1
    }
    let column = depth < 2 ? depth : depth < 4 ? 2 : depth < 8 ? 3 : 4
    return grade * depthCount + column
  }

  /// The chance that a draft is right of which all before it are.
  func share(_ cell: Int) -> Double { cells[cell].share }

  /// Notes whether a draft of which all before it were right was right.
  mutating func note(_ cell: Int, isRight: Bool) {
    cells[cell].count += 1
    let weight = max(Self.leastWeight, 1 / Double(cells[cell].count + 2))
    cells[cell].share += weight * ((isRight ? 1 : 0) - cells[cell].share)
  }
}

/// Decides how many drafts of each sequence a sweep verifies: as many as bring the most tokens for the time that the
/// sweep takes.
///
/// What sweeps take by their rows is measured as they run, beginning with those that read prompts. Drafts that do not
/// pay are tried now and then, for a fixed share of the time.
struct DraftGate {
  private var times = SweepTimes()
  /// Time that trials may take, nanoseconds.
  private var allowance = 0.0
  /// What computing a row takes, by sweeps of so many that it is what they take; nil = there was none.
  private var rowNanoseconds: Double?
  /// Tokens a nanosecond, a moving average.
  private var tokenRate = 0.0
  private var proposals: [DraftProposal] = []
  /// Of each sequence that offered some, how many of its drafts the next sweep is to verify.
  private(set) var chosenCounts: [Int] = []
  /// Of each sequence, drafts that are looked at.
  private var counts: [Int] = []

  /// Of a sweep's time, what may go to drafts of which no gain is expected.
  private static let trialShare = 0.015
  private static let trialLength = 3
  /// What a row is assumed to add to a sweep that was never measured with more, as a share of it.
  private let assumedRowShare: Double

  /// - Parameter isStreamed: whether weights come from the drive in every sweep.
  init(isStreamed: Bool) { assumedRowShare = isStreamed ? 0.01 : 0.1 }

  /// Notes how long a sweep without tokens of prompts took, drafting included, and how many tokens it gave.
  mutating func note(rowCount: Int, tokenCount: Int, nanoseconds: Int, draftNanoseconds: Int) {
    times.note(rowCount: rowCount, nanoseconds: Double(nanoseconds))
    let rate = Double(tokenCount) / Double(max(1, nanoseconds + draftNanoseconds))
    tokenRate += (tokenRate == 0 ? 1 : 0.125) * (rate - tokenRate)
    allowance = min(
      allowance + Self.trialShare * Double(nanoseconds), Double(nanoseconds))
  }

  private static let leastComputedRowCount = 32

  /// Notes how long sweeps took whose rows were tokens of prompts, as many in each.
  mutating func notePrompt(rowCount: Int, sweepCount: Int = 1, nanoseconds: Int) {
    guard rowCount >= Self.leastComputedRowCount * sweepCount else { return }
    let each = Double(nanoseconds) / Double(rowCount)
    rowNanoseconds = min(rowNanoseconds ?? each, each)
  }

  /// How likely a draft must be reached so that a drafter's step after it is worth the time.
  ///
  /// What a step proposes is right in about two cases of three.
  func leastLikelihood(stepNanoseconds: Double) -> Double { 1.5 * tokenRate * stepNanoseconds }

  /// Nanoseconds of a sweep of so many rows.
  private func cost(_ rowCount: Int) -> Double {
    times.estimate(
      rowCount: rowCount, rowNanoseconds: rowNanoseconds, assumedRowShare: assumedRowShare)
  }

  /// Adds what another sequence's draft is worth to what is decided next.
  mutating func offer(_ proposal: DraftProposal) { proposals.append(proposal) }

  /// Decides which drafts a sweep is to verify, of those that were offered: ``chosenCounts``.
  ///
  /// - Parameters:
  ///   - rowCount: rows of the sweep beside drafts.
  ///   - room: most drafts in all.
  mutating func choose(beside rowCount: Int, room: Int) {
    choose(beside: rowCount, room: room, from: proposals)
    proposals.removeAll(keepingCapacity: true)
  }

  private mutating func choose(
    beside rowCount: Int, room: Int, from drafts: [DraftProposal]
  ) {
    chosenCounts.removeAll(keepingCapacity: true)
    var room = max(0, room)
    for draft in drafts {
      chosenCounts.append(min(draft.forcedCount, room))
      room -= chosenCounts[chosenCounts.count - 1]
    }
    guard chosenCounts.allSatisfy({ $0 == 0 }) else { return }
    counts.removeAll(keepingCapacity: true)
    counts.append(contentsOf: chosenCounts)
    let alone = cost(rowCount)
    var (gain, bestRate) = (Double(rowCount), Double(rowCount) / alone)
    for added in 0..<room {
      var (next, nextLikelihood) = (-1, 0.0)
      for (index, draft) in drafts.enumerated() where counts[index] < draft.likelihoods.count {
        let likelihood = draft.likelihoods[counts[index]]
        if next < 0 || likelihood > nextLikelihood { (next, nextLikelihood) = (index, likelihood) }
      }
      guard next >= 0 else { break }
      gain += nextLikelihood
      counts[next] += 1
      let rate = gain / cost(rowCount + added + 1)
      if rate > bestRate {
        bestRate = rate
        for index in counts.indices { chosenCounts[index] = counts[index] }
      }
    }
    guard chosenCounts.allSatisfy({ $0 == 0 }),
      let tried = drafts.firstIndex(where: { !$0.likelihoods.isEmpty })
    else { return }
    let length = min(Self.trialLength, drafts[tried].likelihoods.count, room)
    let price = cost(rowCount + length) - alone
    if length > 0, price <= allowance {
      allowance -= price
      chosenCounts[tried] = length
    }
  }
}
